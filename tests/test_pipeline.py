"""Options of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from instantavatar_ns import pipeline as pipeline_module
from instantavatar_ns.data.datamanager import AvatarDataManagerConfig
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.pipeline import AvatarPipelineConfig
from instantavatar_ns.rendering.renderer import Renderer
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
    for name in ("check_frames", "align_poses"):
        monkeypatch.setattr(pipeline_module, name, lambda *_, name=name: prepared.append(name))

    @contextmanager
    def compiling_kernels(model: object) -> Iterator[None]:
        prepared.append("kernels")
        yield
        prepared.append("compiled")

    monkeypatch.setattr(pipeline_module, "compiling_kernels", compiling_kernels)
    pipeline.prepare_training(resumed=False)
    expected = ["check_frames", *["kernels"] * allowed, "align_poses", *["compiled"] * allowed]
    assert prepared == expected  # kernels are compiled while poses are aligned
    assert (pipeline._captured_step is not None) == allowed


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
