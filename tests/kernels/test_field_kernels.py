"""The interpreter forgives what the compiler does not, so all kernels are compiled, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton.backends.nvidia")

# Bytes of registers that a lane spills; see `BACKWARD` in field/heads_triton.py.
MOST_SPILT = {"gather_kernel": 0, "scatter_kernel": 0, "points_kernel": 0, "forward_kernel": 0, "backward_kernel": 512}
# Of a program, on compute capabilities 9.0 and 8.6.
SHARED_MEMORY = {"half": 227 * 1024, "float": 227 * 1024, "half, 8.6": 99 * 1024}


@pytest.fixture(scope="module")
def kernels(repo_root: Path) -> dict[str, dict[str, dict[str, int]]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(repo_root), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "tests.kernels.compile_field"]
    result = subprocess.run(command, check=False, capture_output=True, text=True, cwd=repo_root, env=environment)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout[result.stdout.index("{") :])


@pytest.mark.parametrize("precision", SHARED_MEMORY)
def test_every_kernel_compiles(kernels: dict[str, dict[str, dict[str, int]]], precision: str) -> None:
    compiled = {name.rsplit("_", 1)[0] for name in kernels[precision]}
    assert compiled == set(MOST_SPILT)
    assert all(used["shared"] <= SHARED_MEMORY[precision] for used in kernels[precision].values())


def test_kernels_are_compiled_once_for_all_numbers_of_points(kernels: dict[str, dict[str, dict[str, int]]]) -> None:
    names = [name.rsplit("_", 1)[0] for name in kernels["half, 8.6"]]
    assert sorted(names) == sorted([*MOST_SPILT, "scatter_kernel", "gather_kernel"]), (
        "merging or not, keeping slopes or not"
    )


def test_kernels_keep_to_their_registers(kernels: dict[str, dict[str, dict[str, int]]]) -> None:
    for name, used in kernels["half"].items():
        assert used["spilt"] <= MOST_SPILT[name.rsplit("_", 1)[0]], name
