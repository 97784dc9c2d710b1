"""Kernels are compiled by launching each on a few numbers: every group runs, and changes nothing of the model."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.model_config import InstantAvatarModelConfig
from instantavatar_ns.training import warm_up

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def model(demo_subject: Path):
    outputs = InstantAvatarDataParserConfig(data=demo_subject).setup().get_dataparser_outputs("train")
    config = InstantAvatarModelConfig(
        implementation="triton",
        renderer="triton",
        hash_levels=8,
        log2_hash_entries=8,
        hidden_width=16,
        skinning_resolution=(16, 16, 8),
    )
    torch.manual_seed(0)
    return config.setup(scene_box=outputs.scene_box, num_train_data=8, metadata=outputs.metadata, device=DEVICE).to(
        DEVICE
    )


def test_every_group_runs_and_changes_nothing(model, monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":
        # The interpreter patches Triton while it runs a kernel: one thread.
        monkeypatch.setattr(warm_up, "_on_device", lambda group, model: None)
    before = copy.deepcopy(model.state_dict())
    warm_up.compile_kernels(model)
    if DEVICE == "cpu":
        for group in (
            warm_up._color, warm_up._density, warm_up._pose, warm_up._search, warm_up._rays, warm_up._image,
            warm_up._canonical_grid, warm_up._union_grid, warm_up._pose_table,
        ):  # fmt: skip
            group(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
