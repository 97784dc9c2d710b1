"""Compile the field's kernels as they are launched, on a machine that need not have any GPU.

    python -m tests.kernels.compile_field

Prints, as JSON, what each of them takes: a lane's registers and bytes of spilt ones, a program's shared memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import torch

from instantavatar_ns.field import heads_triton
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.field.field_triton import Precision, evaluate_field
from instantavatar_ns.field.hash_encoding import HashGrid
from tests.kernels.compiled import compiled_launches, resources


def launched(launch: Callable[[], None], capability: int = 90) -> dict[str, dict[str, int]]:
    """Resources of the different kernels that `launch` would launch, by name and number."""
    kernels = compiled_launches(launch, capability)
    return {f"{name}_{row}": resources(kernel) for name, rows in kernels.items() for row, kernel in enumerate(rows)}


def launch_all(precision: Precision, grid: HashGrid, width: int, with_count: bool, colors: tuple[bool, ...]) -> None:
    """Launch the kernels with tensors of the CPU, of different lengths."""
    middle, half = torch.full((3,), 0.5), torch.tensor(0.5)
    field = CanonicalField(middle, half, grid, width, "torch")
    modules = (field.encoding, field.density_head, field.color_head)
    for num_points in (1024, 1000, 1):
        points, noise = torch.rand(num_points, 3, requires_grad=True), torch.zeros(num_points)
        total = torch.tensor([900], dtype=torch.int32) if with_count else None
        for with_color in colors:
            density, second = evaluate_field(
                modules, points, with_color=with_color, precision=precision, noise=noise, total=total
            )
            (density.sum() + second.sum()).backward()
            with torch.no_grad():
                evaluate_field(modules, points, with_color=with_color, precision=precision, noise=noise, total=total)


def main() -> None:
    """Compile for compute capabilities 9.0 and 8.6, and in single precision for the sizes of the small method."""
    small = HashGrid(12, 16)
    kernels = {
        "half": launched(lambda: launch_all("half", HashGrid(), 64, True, (True, False))),
        "float": launched(lambda: launch_all("float", small, 32, False, (True,))),
    }
    heads_triton._has_large_shared_memory = lambda device: False
    kernels["half, 8.6"] = launched(lambda: launch_all("half", HashGrid(), 64, False, (True,)), 86)
    print(json.dumps(kernels, indent=2))


if __name__ == "__main__":
    main()
