"""Options of the pipeline."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, current_thread

import pytest
import torch

from instantavatar_ns import pipeline as pipeline_module
from instantavatar_ns.data import datamanager as datamanager_module
from instantavatar_ns.data.cropped_frames import CroppedFrames
from instantavatar_ns.data.datamanager import AvatarDataManagerConfig
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.pipeline import AvatarPipelineConfig
from instantavatar_ns.rendering.renderer import Renderer
from instantavatar_ns.utils.errors import InputError
from tests.tiny import TINY


@pytest.mark.parametrize("allowed", [True, False])
def test_one_option_says_whether_steps_and_images_may_be_captured(
    demo_subject: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    config = AvatarPipelineConfig(
        datamanager=AvatarDataManagerConfig(dataparser=InstantAvatarDataParserConfig(data=demo_subject)),
        model=replace(TINY, renderer="torch", cuda_graphs=allowed),
    )
    pipeline = config.setup(device="cpu", test_mode="test")
    model = pipeline.model
    assert not model.renderer.supports_cuda_graphs
    monkeypatch.setattr(Renderer, "device", torch.device("cuda"))
    monkeypatch.setattr(model.renderer, "implementation", "triton")
    monkeypatch.setattr(model.field, "has_kernels", True)
    assert model.renderer.supports_cuda_graphs == allowed
    prepared = []
    for name in ("diagnose_frames", "judge", "align_poses"):
        monkeypatch.setattr(pipeline_module, name, lambda *_, name=name: prepared.append(name))

    @contextmanager
    def compiling_kernels(model: object) -> Iterator[None]:
        prepared.append("kernels")
        yield
        prepared.append("compiled")

    monkeypatch.setattr(pipeline_module, "compiling_kernels", compiling_kernels)
    pipeline.prepare_training(resumed=False)
    expected = [*["kernels"] * allowed, "diagnose_frames", "judge", "align_poses", *["compiled"] * allowed]
    assert prepared == expected  # kernels are compiled while data is checked and poses are aligned
    assert (pipeline._own_step is not None) == allowed


def test_what_a_checkpoint_has_is_not_aligned_again(demo_subject: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a pipeline that is not trained: nothing is prepared until it is asked for."""
    config = AvatarPipelineConfig(
        datamanager=AvatarDataManagerConfig(dataparser=InstantAvatarDataParserConfig(data=demo_subject)),
        model=TINY,
        check_data="off",
    )
    called = []
    monkeypatch.setattr(pipeline_module, "align_poses", lambda *_: called.append("align_poses"))
    pipeline = config.setup(device="cpu")
    assert not called
    pipeline.prepare_training(resumed=True)
    assert not called
    pipeline.prepare_training(resumed=False)
    assert called == ["align_poses"]


def test_model_is_built_while_frames_are_read(demo_subject: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one waited for the other, this would time out."""
    is_building, read = Event(), datamanager_module.read_frames

    def read_later(dataset: AvatarDataset, device: torch.device) -> CroppedFrames:
        assert is_building.wait(60)
        return read(dataset, device)

    class Model(InstantAvatarModel):
        def populate_modules(self) -> None:
            is_building.set()
            super().populate_modules()

    monkeypatch.setattr(datamanager_module, "read_frames", read_later)
    config = AvatarPipelineConfig(
        datamanager=AvatarDataManagerConfig(dataparser=InstantAvatarDataParserConfig(data=demo_subject)),
        model=replace(TINY, _target=Model),
    )
    assert len(config.setup(device="cpu").datamanager.train_frames) == 8


@pytest.mark.parametrize("test_mode", ["val", "test", "inference"])
def test_data_is_checked_once_and_for_a_training_before_the_model_is_built(
    demo_subject: Path, monkeypatch: pytest.MonkeyPatch, test_mode: str
) -> None:
    """Where the check came after the model, this would time out; commands that look at a run do without it."""
    has_begun, checked, judged = Event(), [], []

    def diagnose(*_: object) -> str:
        has_begun.set()
        checked.append(current_thread())
        return "diagnosis"

    class Model(InstantAvatarModel):
        def populate_modules(self) -> None:
            assert test_mode != "val" or has_begun.wait(60)
            super().populate_modules()

    monkeypatch.setattr(pipeline_module, "diagnose_frames", diagnose)
    monkeypatch.setattr(pipeline_module, "judge", lambda folder, diagnosis, *_: judged.append(diagnosis))
    config = AvatarPipelineConfig(
        datamanager=AvatarDataManagerConfig(dataparser=InstantAvatarDataParserConfig(data=demo_subject)),
        model=replace(TINY, _target=Model, align_poses=False),
    )
    pipeline = config.setup(device="cpu", test_mode=test_mode)
    assert len(checked) == (test_mode == "val") and not judged
    if test_mode == "inference":
        return  # it has no frames to train on
    pipeline.prepare_training(resumed=False)
    assert len(checked) == 1 and judged == ["diagnosis"]
    assert (checked[0] is current_thread()) == (test_mode == "test")


def test_frame_that_cannot_be_read_ends_the_construction(demo_subject: Path, tmp_path: Path) -> None:
    """By the error of its reader, though that is a thread."""
    data = tmp_path / "subject"
    shutil.copytree(demo_subject, data)
    broken = sorted((data / "images").iterdir())[3]
    broken.write_bytes(b"no image")
    config = AvatarPipelineConfig(
        datamanager=AvatarDataManagerConfig(dataparser=InstantAvatarDataParserConfig(data=data)), model=TINY
    )
    with pytest.raises(InputError, match=f"{broken.name}: expected a readable image"):
        config.setup(device="cpu")


def test_several_processes_take_no_gradient_scaler(demo_subject: Path) -> None:
    """Its factor changes from step to step, and differs between processes."""
    config = AvatarPipelineConfig(
        datamanager=AvatarDataManagerConfig(dataparser=InstantAvatarDataParserConfig(data=demo_subject)), model=TINY
    )
    with pytest.raises(InputError, match="--mixed-precision: expected full precision where 2 processes train"):
        config.setup(device="cpu", world_size=2, grad_scaler=torch.amp.GradScaler("cpu"))
