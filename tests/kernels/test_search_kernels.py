"""The interpreter forgives what the compiler does not, so all kernels are compiled, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton.backends.nvidia")

KERNELS = {"blend_kernel", "candidates_kernel", "search_kernel", "gradient_kernel"}


@pytest.fixture(scope="module")
def kernels(repo_root: Path) -> dict[str, list[dict]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(repo_root)
    command = [sys.executable, "-m", "tests.kernels.compile_search"]
    result = subprocess.run(command, check=False, capture_output=True, text=True, cwd=repo_root, env=environment)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout)


def test_every_kernel_compiles(kernels: dict[str, list[dict]]) -> None:
    assert set(kernels) == KERNELS


def test_nothing_is_spilt(kernels: dict[str, list[dict]]) -> None:
    assert all(used["spilt"] == 0 for variants in kernels.values() for used in variants)


def test_search_fits_many_times(kernels: dict[str, list[dict]]) -> None:
    """24 programs on a multiprocessor with 65,536 registers: what hides the latency of the look-ups."""
    assert all(32 * 24 * used["registers"] <= 65536 for used in kernels["search_kernel"])


def test_search_is_compiled_once_for_all_numbers_of_points(kernels: dict[str, list[dict]]) -> None:
    assert len(kernels["search_kernel"]) == 2, "with and without the optional tensors"
    assert len(kernels["gradient_kernel"]) == 1


def test_search_loads_whole_rows(kernels: dict[str, list[dict]]) -> None:
    """Eight of 16 bytes in a step; rows that were taken apart would show as 32 of 4 bytes."""
    for used in kernels["search_kernel"]:
        assert used["instructions"]["LDG.E.128"] >= 8
        assert used["instructions"]["LDG.E"] < 16


def test_lanes_of_a_point_decide_alike(kernels: dict[str, list[dict]]) -> None:
    """They leave the search's loop together only if all have the same sums, to the last bit."""
    assert all(not used["fused_with_other_lanes"] for used in kernels["search_kernel"])
    assert all(used["instructions"]["FFMA"] > 50 for used in kernels["search_kernel"]), "blending is fused all the same"
