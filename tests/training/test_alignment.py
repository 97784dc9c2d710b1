"""A model's poses are aligned before its first step, which is said."""

from __future__ import annotations

import re

import pytest
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from instantavatar_ns.training.alignment import align_poses
from instantavatar_ns.utils import progress
from tests.tiny import build, frame_store


def test_log_says_how_many_frames_are_aligned_and_how_far_it_is(
    outputs: DataparserOutputs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_A_LINE", 0.0)
    frames, model = frame_store(outputs), build(outputs)
    capsys.readouterr()
    align_poses(model, frames.images.masks(), frames.cameras)
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
