"""The field's benchmark, at a small size and with a stopwatch in place of a GPU's clock."""

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

from benchmarks.kernels_field import floors, measure
from instantavatar_ns.field.hash_encoding import HashGrid
from instantavatar_ns.kernels.usable import triton_usable

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def stopwatch(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


@pytest.mark.nightly
@pytest.mark.skipif(not triton_usable(), reason="needs triton, and a GPU or its interpreter")
def test_every_implementation_is_timed_and_compared() -> None:
    figures = measure(HashGrid(4, 8, 4, 1.5), [70], DEVICE, stopwatch, sweep=True)
    json.dumps(figures)
    assert {"triton", "torch"} <= set(figures["field"])
    assert figures["field_ms"] == min(
        figures["field"][name]["70"]["forward_backward_ms"] for name in ("triton", "torch")
    )
    assert set(figures["kernels_ms"]["70"]) == set(figures["floor"]["70"])
    assert len(figures["sweep_ms"]["70"]) > 20
    for implementation, tolerance in (("triton half", 1e-2), ("triton float", 1e-4), ("torch", 1e-4)):
        assert max(figures["gradient_error"][implementation].values()) < tolerance, implementation


def test_floors_count_what_is_moved_and_computed() -> None:
    figures = floors(HashGrid(), 1 << 18)
    assert figures["heads_forward"]["operations"] == 3 * 2 * 9216 * 2**18, "9,216 weights, three products for one"
    table, encoded = 4 * 13_026_992, 4 * 32 * 2**18
    assert figures["gather"]["bytes"] == table + encoded + 12 * 2**18


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_benchmark_says_so(repo_root: Path) -> None:
    command = [sys.executable, "benchmarks/kernels_field.py"]
    result = subprocess.run(command, check=False, capture_output=True, text=True, cwd=repo_root)
    assert result.returncode == 1
    assert "no GPU" in result.stderr and "Traceback" not in result.stderr
