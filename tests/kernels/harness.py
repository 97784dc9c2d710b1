"""Kernels in a process of their own, compiled as they are launched, on a machine that need not have any GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from instantavatar_ns.kernels import launch as launch_module

_BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def report_of(module: str) -> Any:
    """Run a module of `tests.kernels` and return what it prints as JSON.

    It is run in a process of its own, because Triton decides once per process whether it interprets kernels, and
    without a C compiler: what Triton's wheel brings must do.

    Raises:
        AssertionError: The process failed; shows the end of what it wrote.
    """
    root = Path(__file__).resolve().parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", f"tests.kernels.{module}"]
    result = subprocess.run(
        command, cwd=root, env={**environment, "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


class NoDevice:
    """Stands for Triton's driver: compiling asks it for its target alone."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled_launches(launch: Callable[[], object], capability: int = 90) -> dict[str, list[Any]]:
    """The different kernels that `launch` would launch, by name. For a process without TRITON_INTERPRET."""
    kernels: dict[str, list[Any]] = {}
    run, launcher = JITFunction.run, launch_module.launcher

    def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        known = kernels.setdefault(self.__name__, [])
        if all(kernel.hash != other.hash for other in known):
            known.append(kernel)
        return kernel

    driver.set_active(NoDevice(capability))  # pyright: ignore[reportArgumentType]
    JITFunction.run = compile_only  # pyright: ignore[reportAttributeAccessIssue]
    launch_module.launcher = lambda: "triton"  # pyright: ignore[reportAttributeAccessIssue]
    try:
        launch()
    finally:
        JITFunction.run, launch_module.launcher = run, launcher
    return kernels


def resources(kernel: Any, with_instructions: bool = False) -> dict[str, Any]:
    """Resources of a compiled kernel: a lane's registers and bytes of spilt ones, a program's bytes of shared memory.

    Args:
        kernel: As `compiled_launches` gives it.
        with_instructions: Count its machine instructions by kind too, and list those that join a product with another
            lane's.
    """
    report = _cuobjdump(kernel, "-res-usage")
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    assert found is not None, report
    used = {"registers": int(found[1]), "spilt": int(found[2]), "shared": kernel.metadata.shared}
    if with_instructions:
        used["instructions"] = Counter(_instructions(kernel))
        used["fused_with_other_lanes"] = _fused_with_other_lanes(kernel)
    return used


def _instructions(kernel: Any) -> list[str]:
    """Names of the machine instructions, with their modifiers, in order."""
    return re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", _cuobjdump(kernel, "-sass"), re.M)


def _fused_with_other_lanes(kernel: Any) -> list[str]:
    """Instructions that join a product with what another lane has sent: lanes that sum so end with different sums."""
    ptx = kernel.asm["ptx"]
    sent = set(re.findall(r"shfl\.sync\.\w+\.b32\s+(%\w+)", ptx))
    for to, origin in re.findall(r"mov\.b32\s+(%\w+), (%\w+);", ptx):
        if origin in sent:
            sent.add(to)
    joined = re.findall(r"(fma\.rn\.f32\s+%\w+, \S+, \S+, (%\w+));", ptx)
    return [instruction for instruction, addend in joined if addend in sent]


def _cuobjdump(kernel: Any, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(_BINARIES / "cuobjdump"), option, file.name]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
    return result.stdout + result.stderr
