"""Launches of kernels by Triton, or by the CUDA driver where there is no C compiler."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from instantavatar_ns.kernels import launch as launch_module
from instantavatar_ns.kernels.components import count_kernel
from instantavatar_ns.kernels.launch import launch, launcher, signature
from tests.kernels.harness import report_of


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


@pytest.fixture(scope="module")
def driver_report() -> dict[str, Any]:
    """Launches that a driver was asked for which only notes them."""
    pytest.importorskip("cuda.bindings.driver")
    return report_of("driver_launches")


def test_driver_is_given_the_arguments(driver_report: dict[str, Any]) -> None:
    """Pointers, numbers of 32 and 64 bits, none for the absent tensor and the constants, two pointers to nothing."""
    assert driver_report["arguments"] == driver_report["expected"]
    # Function, programs, lanes, bytes of shared memory, stream.
    assert driver_report["first"] == [101, 3, 2, 1, 64, 1, 1, 0, 42]


def test_numbers_are_not_specialised_where_the_kernel_asks_for_that(driver_report: dict[str, Any]) -> None:
    """Nor what is absent; `out` begins four bytes later, `small` is 5, and `n` is 16."""
    assert driver_report["aligned"] == [*"abcdefgh", "big"]


def test_kernel_is_loaded_once_for_each_kind_of_arguments(driver_report: dict[str, Any]) -> None:
    """Again for another alignment, tensor or constant, not for another thread."""
    assert driver_report["functions"] == [101, 102, 103, 104, 105, 101]
    assert driver_report["different_codes"] == 3, "alignment changes nothing in this kernel"


def test_other_threads_are_given_the_context_of_pytorch(driver_report: dict[str, Any]) -> None:
    assert driver_report["contexts"] == ["context of 0"]


def test_launching_costs_the_host_little(driver_report: dict[str, Any]) -> None:
    """A few microseconds; a slow and busy machine is given ten times as many."""
    assert driver_report["microseconds"] < 100


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
    launch(count_kernel, (0,), BLOCK=64)  # would fail, as arguments are missing


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("path", ["triton", "driver"])
def test_both_launchers_run_a_kernel(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(launch_module, "launcher", lambda: path)
    occupied = torch.ones(100, dtype=torch.uint8, device="cuda")
    labels = torch.arange(100, dtype=torch.int32, device="cuda") // 2 * 2
    sizes = torch.zeros_like(labels)
    launch(count_kernel, (2,), occupied, labels, sizes, 100, BLOCK=64)
    assert sizes.tolist() == [2, 0] * 50


_C_MODULE = """
#include <Python.h>
static PyObject *value(PyObject *self, PyObject *nothing) { return PyLong_FromLong(NUMBER); }
static PyMethodDef methods[] = {{"value", value, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "same_name", NULL, -1, methods};
PyMODINIT_FUNC PyInit_same_name(void) { return PyModule_Create(&definition); }
"""


def test_launchers_of_one_name_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels share launchers' files and all launchers their name: each must keep its own function."""
    if launch_module.launcher() != "triton":
        pytest.skip("needs a C compiler")
    from triton.runtime import build

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launch_module.keep_modules_apart()  # once more, which changes nothing
    numbers = (1, 2, 1)
    modules = [build.compile_module_from_src(_C_MODULE.replace("NUMBER", str(n)), "same_name") for n in numbers]
    assert [module.value() for module in modules] == [1, 2, 1]
    assert "same_name" not in sys.modules
