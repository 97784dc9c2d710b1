"""How kernels reach the GPU."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from instantavatar_ns.kernels import launch as launch_module
from instantavatar_ns.kernels.components import count_kernel
from instantavatar_ns.kernels.launch import launch, launcher, signature


@pytest.fixture(autouse=True)
def forget_the_launcher() -> Iterator[None]:
    launcher.cache_clear()
    yield
    launcher.cache_clear()


def test_types_and_alignment_of_arguments_are_told_to_the_compiler() -> None:
    numbers = torch.zeros(65, dtype=torch.int32)
    flags = torch.zeros(64, dtype=torch.uint8)
    types, attributes = signature(count_kernel, (flags, numbers[1:], numbers, 96), {"BLOCK": 64})
    assert types == {"occupied": "*u8", "labels": "*i32", "sizes": "*i32", "num_cells": "i32"}
    assert set(attributes) == {(0,), (2,), (3,)}, "the second begins four bytes later"
    assert signature(count_kernel, (flags, numbers, 0.5, 2**40), {"BLOCK": 64})[0]["num_cells"] == "i64"


def test_arguments_that_are_not_the_kernels_are_refused() -> None:
    flags = torch.zeros(64, dtype=torch.uint8)
    with pytest.raises(TypeError, match="count_kernel takes"):
        signature(count_kernel, (flags,), {"BLOCK": 64})
    with pytest.raises(TypeError, match="count_kernel takes"):
        signature(count_kernel, (flags, flags, flags, 1), {})


def test_without_a_compiler_the_driver_is_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(launch_module.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "gcc" else None)
    assert launcher() == "triton"
    launcher.cache_clear()
    monkeypatch.setattr(launch_module.shutil, "which", lambda _: None)
    monkeypatch.setattr(launch_module, "find_spec", lambda _: object())
    assert launcher() == "driver"
    launcher.cache_clear()
    monkeypatch.setattr(launch_module, "find_spec", lambda _: None)
    with pytest.raises(RuntimeError, match="pip install cuda-bindings"):
        launcher()


def test_nothing_is_launched_on_an_empty_grid() -> None:
    launch(count_kernel, (0,), BLOCK=64)  # would fail for want of arguments


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("path", ["triton", "driver"])
def test_both_launchers_run_a_kernel(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(launch_module, "launcher", lambda: path)
    occupied = torch.ones(100, dtype=torch.uint8, device="cuda")
    labels = torch.arange(100, dtype=torch.int32, device="cuda") // 2 * 2
    sizes = torch.zeros_like(labels)
    launch(count_kernel, (2,), occupied, labels, sizes, 100, BLOCK=64)
    assert sizes.tolist() == [2, 0] * 50
