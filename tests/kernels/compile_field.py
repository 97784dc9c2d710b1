"""Compile the field's kernels as they are launched, on a machine that need not have any GPU.

    python -m tests.kernels.compile_field

Prints, as JSON, what each of them takes: a lane's registers and bytes of spilt ones, a program's shared memory.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from instantavatar_ns.field import triton_heads
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.field.hash_encoding import HashGrid
from instantavatar_ns.field.triton_field import Precision, evaluate_field

_BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


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


def resources(kernel: Any) -> dict[str, int]:
    """What the assembler says of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(_BINARIES / "cuobjdump"), "-res-usage", file.name]
        report = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", report.stdout + report.stderr)
    assert found is not None, report
    return {"registers": int(found[1]), "spilt": int(found[2]), "shared": kernel.metadata.shared}


def compiled_launches(launch: Callable[[], None], capability: int = 90) -> dict[str, dict[str, int]]:
    """Resources of the different kernels that `launch` would launch, by name and number."""
    kernels: dict[str, Any] = {}
    run = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        if all(kernel.hash != known.hash for known in kernels.values()):
            name = self.__name__
            kernels[f"{name}_{sum(known.startswith(name) for known in kernels)}"] = kernel
        return kernel

    driver.set_active(NoDevice(capability))  # pyright: ignore[reportArgumentType]
    JITFunction.run = compile_only  # pyright: ignore[reportAttributeAccessIssue]
    try:
        launch()
    finally:
        JITFunction.run = run
    return {name: resources(kernel) for name, kernel in kernels.items()}


def launch_all(precision: Precision, grid: HashGrid, width: int, with_count: bool, colors: tuple[bool, ...]) -> None:
    """Launch the kernels with tensors of the CPU, of different lengths."""
    middle, half = torch.full((3,), 0.5), torch.tensor(0.5)
    field = CanonicalField(middle, half, grid, width, "torch")
    modules = (field.encoding, field.density_head, field.color_head)
    for num_points in (1024, 1000, 1):
        points, noise = torch.rand(num_points, 3, requires_grad=True), torch.zeros(num_points)
        count = torch.tensor([900], dtype=torch.int32) if with_count else None
        for with_color in colors:
            density, second = evaluate_field(
                modules, points, with_color=with_color, precision=precision, noise=noise, count=count
            )
            (density.sum() + second.sum()).backward()
            with torch.no_grad():
                evaluate_field(modules, points, with_color=with_color, precision=precision, noise=noise, count=count)


def main() -> None:
    """Compile for compute capabilities 9.0 and 8.6, and in single precision for the sizes of the small method."""
    small = HashGrid(12, 16)
    kernels = {
        "half": compiled_launches(lambda: launch_all("half", HashGrid(), 64, True, (True, False))),
        "float": compiled_launches(lambda: launch_all("float", small, 32, False, (True,))),
    }
    triton_heads._has_large_shared_memory = lambda device: False
    kernels["half, 8.6"] = compiled_launches(lambda: launch_all("half", HashGrid(), 64, False, (True,)), 86)
    print(json.dumps(kernels, indent=2))


if __name__ == "__main__":
    main()
