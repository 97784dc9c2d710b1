"""Triton's compiler takes every kernel, for a GPU that need not be there; the interpreter forgives what it does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from instantavatar_ns import kernels
from tests.kernels.compile_kernels import KERNELS


@pytest.fixture(scope="module")
def report() -> dict[str, tuple[int, int]]:
    """Registers and spilled bytes of each kernel on an H100."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PATH"] = ""  # no C compiler: what Triton's wheel brings must do
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "tests.kernels.compile_kernels"]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    rows = [line.split() for line in result.stdout.splitlines()]
    return {name: (int(registers), int(spilled)) for name, registers, spilled in rows}


def test_all_kernels_are_compiled() -> None:
    """Those of the field and of the search have tests of their own."""
    tested_elsewhere = ("field_heads", "hash_encoding", "posed_skinning", "search")
    paths = [path for path in Path(kernels.__path__[0]).glob("*.py") if path.stem not in tested_elsewhere]
    sources = [path.read_text(encoding="utf8") for path in paths]
    defined = {name for source in sources for name in re.findall(r"^def (\w+_kernel)\(", source, re.MULTILINE)}
    assert defined == {kernel.__name__ for kernel, *_ in KERNELS}


@pytest.mark.parametrize("name", [kernel.__name__ for kernel, *_ in KERNELS])
def test_kernel_keeps_its_values_in_registers(report: dict[str, tuple[int, int]], name: str) -> None:
    registers, spilled = report[name]
    assert spilled == 0 and registers < 256
