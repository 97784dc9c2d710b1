"""Kernels are compiled by launching each on a few numbers: every group runs, and changes nothing of the model."""

from __future__ import annotations

import copy
from threading import Event

import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from instantavatar_ns.training import warm_up
from instantavatar_ns.utils.errors import InputError
from tests.tiny import DEVICE, build


@pytest.fixture(scope="module")
def model(outputs: DataparserOutputs):
    sizes = {"hash_levels": 8, "log2_hash_entries": 8, "skinning_resolution": (16, 16, 8)}
    return build(outputs, DEVICE, implementation="triton", renderer="triton", **sizes)


def test_every_group_runs_and_changes_nothing(model, monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":
        # The interpreter patches Triton while it runs a kernel: one thread.
        monkeypatch.setattr(warm_up, "_on_device", lambda group, model: None)
    before = copy.deepcopy(model.state_dict())
    with warm_up.compiling_kernels(model):
        pass
    if DEVICE == "cpu":
        for group in (
            warm_up._draws,
            warm_up._color, warm_up._density, warm_up._pose, warm_up._search, warm_up._rays, warm_up._losses,
            warm_up._image, warm_up._canonical_grid, warm_up._union_grid, warm_up._pose_table,
        ):  # fmt: skip
            group(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_error_meanwhile_is_told_at_once_and_the_end_waits_for_all(model, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, done = Event(), []
    monkeypatch.setattr(warm_up, "_on_device", lambda group, model: compiled.wait(60) and done.append(group))
    with pytest.raises(InputError, match="expected this"), warm_up.compiling_kernels(model):
        raise InputError("place", "expected this, found that", "Do this")
    assert not done
    compiled.set()
    with warm_up.compiling_kernels(model):
        pass
    assert {warm_up._search, warm_up._image, warm_up._losses} <= {*done}
