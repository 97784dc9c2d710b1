"""Triton's compiler takes every kernel, for a GPU that need not be there; the interpreter forgives what it does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from instantavatar_ns import kernels

pytest.importorskip("triton.backends.nvidia")
from tests.kernels.harness import report_of

# Bytes of registers that a lane spills; see `BACKWARD` in field/heads_triton.py. Sines of large angles take an array.
MOST_SPILT = {"backward_kernel": 512, "frame_pose_kernel": 64, "frame_pose_backward_kernel": 32}
FIELD = {"gather_kernel", "scatter_kernel", "points_kernel", "forward_kernel", "backward_kernel"}
# Bytes of shared memory of a program, on compute capabilities 9.0 and 8.6.
SHARED_MEMORY = {"field, half": 227 * 1024, "field, float": 227 * 1024, "field, half, 8.6": 99 * 1024}

Report = dict[str, dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def report() -> Report:
    """Resources of each variant of each kernel, by the names of `tests.kernels.launches.LAUNCHES`."""
    return report_of("launches")


@pytest.fixture(scope="module")
def search(report: Report) -> dict[str, list[dict[str, Any]]]:
    return report["search"]


def test_every_kernel_of_the_package_compiles(report: Report) -> None:
    sources = [path.read_text(encoding="utf8") for path in Path(kernels.__path__[0]).glob("*.py")]
    defined = {name for source in sources for name in re.findall(r"^def (\w+_kernel)\(", source, re.MULTILINE)}
    assert defined == {name for compiled in report.values() for name in compiled}


def test_kernels_keep_their_values_in_registers(report: Report) -> None:
    for launches in ("field, half", "search", "occupancy", "rendering", "draws", "losses", "pose", "optimizer"):
        for name, variants in report[launches].items():
            for used in variants:
                assert used["spilt"] <= MOST_SPILT.get(name, 0) and used["registers"] <= 255, name


@pytest.mark.parametrize("launches", SHARED_MEMORY)
def test_field_fits_the_shared_memory(report: Report, launches: str) -> None:
    assert set(report[launches]) == FIELD
    for variants in report[launches].values():
        assert all(used["shared"] <= SHARED_MEMORY[launches] for used in variants)


def test_field_is_compiled_once_for_all_numbers_of_points(report: Report) -> None:
    variants = {name: len(each) for name, each in report["field, half, 8.6"].items()}
    twice = {"scatter_kernel": 2, "gather_kernel": 2}  # with and without merging, with and without keeping slopes
    assert variants == dict.fromkeys(FIELD, 1) | twice


@pytest.mark.parametrize("launches", ["rendering", "draws", "pose"])
def test_rendering_is_compiled_once_for_all_numbers_of_rays_and_frames(report: Report, launches: str) -> None:
    assert {len(variants) for variants in report[launches].values()} == {1}


def test_losses_are_compiled_once_for_all_numbers_of_rays(report: Report) -> None:
    assert {len(variants) for variants in report["losses"].values()} == {2}, "drawn backgrounds, or one"


def test_search_fits_many_times(search: dict[str, list[dict[str, Any]]]) -> None:
    """24 programs on a multiprocessor with 65,536 registers hide the latency of the look-ups."""
    assert all(32 * 24 * used["registers"] <= 65536 for used in search["search_kernel"])


def test_search_is_compiled_once_for_all_numbers_of_points(search: dict[str, list[dict[str, Any]]]) -> None:
    assert len(search["search_kernel"]) == 2, "with and without the optional tensors"
    assert len(search["gradient_kernel"]) == 1


def test_search_loads_whole_rows(search: dict[str, list[dict[str, Any]]]) -> None:
    """Eight loads of 16 bytes in a step; rows that were taken apart would show as 32 of 4 bytes."""
    for used in search["search_kernel"]:
        assert used["instructions"]["LDG.E.128"] >= 8
        assert used["instructions"]["LDG.E"] < 16


def test_lanes_of_a_point_decide_alike(search: dict[str, list[dict[str, Any]]]) -> None:
    """They leave the search's loop together only if all have the same sums, to the last bit."""
    assert all(not used["fused_with_other_lanes"] for used in search["search_kernel"])
    assert all(used["instructions"]["FFMA"] > 50 for used in search["search_kernel"]), "blending is fused all the same"
