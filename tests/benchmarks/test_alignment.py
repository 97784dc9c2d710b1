"""The benchmark of the alignment, at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import alignment, record


def test_figures_are_those_of_each_number_of_frames() -> None:
    figures = alignment.align(alignment.make_recording(10, 64).first(8), threads=1)
    assert 0 < figures["seconds"]
    assert 0 <= figures["added_memory_mb"] < figures["peak_memory_mb"]
    assert figures["error_deg"] < figures["given_error_deg"]


def test_growth_compares_seconds_a_frame() -> None:
    growths = alignment.growths({"seconds_100": 5.0, "seconds_200": 11.0, "seconds_400": 18.0}, [100, 200, 400])
    assert growths == pytest.approx({"growth_200": 1.1, "growth_400": 0.9, "growth": 1.1})


def test_headlines_renew_their_part_of_a_file(tmp_path: Path) -> None:
    figures = {"seconds_100": 2.0, "seconds_1600": 31.0, "peak_memory_mb_1600": 2500.0, "growth": 0.97}
    headlines = alignment.headlines(figures, [100, 1600], "cpu")
    assert headlines == {
        "align_cpu_s_100": 2.0,
        "align_cpu_s_1600": 31.0,
        "align_cpu_gb_1600": 2.5,
        "align_cpu_growth": 0.97,
    }
    path = tmp_path / "instant.json"
    record.merge(path, "other", {"help_s": 3.0, "align_cpu_s_100": 9.0})
    record.merge(path, "alignment", headlines, "cpu")
    written = json.loads(path.read_text())
    assert written["runs"].keys() == {"other", "alignment"}
    assert written["runs"]["alignment"]["device"].startswith("CPU")
    del written["runs"]
    assert written == headlines | {"help_s": 3.0}


def test_memory_of_a_gpu_is_that_of_the_alignment() -> None:
    figures = {"seconds_100": 0.5, "peak_memory_mb_100": 2500.0, "device_memory_mb_100": 700.0}
    assert alignment.headlines(figures, [100], "cuda") == {"align_s_100": 0.5, "align_gb_100": 0.7}
