"""A model's poses are aligned before its first step, which is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instantavatar_ns.data.datamanager import AvatarDataManagerConfig, FrameStore
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.model_config import InstantAvatarModelConfig
from instantavatar_ns.training.alignment import align_poses
from instantavatar_ns.utils import progress


def test_log_says_how_many_frames_are_aligned_and_how_far_it_is(
    demo_subject: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_A_LINE", 0.0)
    outputs = InstantAvatarDataParserConfig(data=demo_subject).setup().get_dataparser_outputs("train")
    config = InstantAvatarModelConfig(
        implementation="torch", hash_levels=4, log2_hash_entries=10, skinning_resolution=(32, 32, 8)
    )
    frames = FrameStore(AvatarDataset(outputs), "cpu", AvatarDataManagerConfig(), rank=0)
    model = config.setup(
        scene_box=outputs.scene_box, num_train_data=len(frames), metadata=outputs.metadata, device="cpu"
    )
    capsys.readouterr()
    align_poses(model, frames.images[..., 3], frames.cameras)
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first == f"Aligning the poses of {len(frames)} training frames to their silhouettes in 8 rounds"
    line = re.compile(r"Aligning the poses: (\d+)% after \d+ s, about \d+ s left")
    shares = [int(share) for text in lines for share in line.findall(text)]
    assert len(shares) == len(lines)
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert re.fullmatch(
        r"Aligned the poses in \d+ s; the given rotations seem to be off by [\d.]+ degrees an axis", last
    )
    assert model.pose_refinement.corrections().abs().max() > 0.001
