"""Options of the pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from instantavatar_ns.data.datamanager import AvatarDataManagerConfig
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.pipeline import AvatarPipelineConfig
from tests.tiny import TINY


@pytest.mark.parametrize("record", [True, False])
def test_without_recorded_steps_images_are_not_recorded_either(
    demo_subject: Path, monkeypatch: pytest.MonkeyPatch, record: bool
) -> None:
    config = AvatarPipelineConfig(
        datamanager=AvatarDataManagerConfig(dataparser=InstantAvatarDataParserConfig(data=demo_subject)),
        model=replace(TINY, renderer="torch"),
        record_steps=record,
    )
    model = config.setup(device="cpu", test_mode="test").model
    assert not model.supports_cuda_graphs
    monkeypatch.setattr(InstantAvatarModel, "device", torch.device("cuda"))
    monkeypatch.setattr(model, "renderer", "triton")
    monkeypatch.setattr(model.field, "has_kernels", True)
    assert model.supports_cuda_graphs == record
