"""The benchmark of the alignment, at a tiny size."""

from __future__ import annotations

import pytest

from benchmarks import alignment


def test_figures_are_those_of_each_number_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = alignment.align(alignment.make_recording(10, 64).first(8), threads=1)
    assert 0 < figures["seconds"]
    assert 0 <= figures["added_memory_mb"] < figures["peak_memory_mb"]
    assert figures["error_deg"] < figures["given_error_deg"]


def test_growth_compares_seconds_a_frame() -> None:
    growths = alignment.growths({"seconds_100": 5.0, "seconds_200": 11.0, "seconds_400": 18.0}, [100, 200, 400])
    assert growths == pytest.approx({"growth_200": 1.1, "growth_400": 0.9, "growth": 1.1})
