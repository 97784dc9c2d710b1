"""The search's benchmark, at a small size and with a stopwatch in place of a GPU's clock."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.kernels_search import REACH, measure, scene

pytest.importorskip("triton")


def stopwatch(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


@pytest.mark.nightly
def test_kernels_are_timed_and_compared() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    figures = json.loads(json.dumps(measure(300, device, stopwatch, (48, 48, 12))))
    assert figures["search_recall"] > 0.99
    assert figures["largest_skin_back_m"] < 1e-4
    assert abs(figures["roots"] / figures["reference_roots"] - 1) < 0.01
    assert 1 < figures["starts_per_point"] < figures["reference_evaluations_per_point"] < 40
    assert all(value > 0 for name, value in figures.items() if name.endswith("_ms"))
    assert all(value > 0 for value in figures["floor"].values())


def test_points_are_near_the_posed_body() -> None:
    deformer, bones, points = scene(500, (32, 32, 8))
    again, _, _ = scene(500, (32, 32, 8))
    assert torch.equal(again.box.lower, deformer.box.lower)
    lower, upper = deformer.pose(bones).candidates.posed_box
    assert ((points > lower) & (points < upper)).all()
    assert (points - points.mean(dim=0)).norm(dim=-1).max() > 10 * REACH, "all over the body"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(repo_root: Path) -> None:
    command = [sys.executable, "benchmarks/kernels_search.py"]
    result = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1].endswith("torch finds no GPU here.")
