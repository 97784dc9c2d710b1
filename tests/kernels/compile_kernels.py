"""Compile every Triton kernel for an H100, without one, and print what the assembler says of each.

Run by `test_compile.py` in a process of its own, since Triton decides once per process whether it interprets.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from instantavatar_ns.kernels import components, composite, image_rounds, march, posed_grid, row_adam

FLOATS, INTS, FLAGS = "*fp32", "*i32", "*u8"
CANONICAL = {"NX": 128, "NY": 128, "NZ": 32}
# Kernel, types of its arguments, its constants, warps.
KERNELS = [
    (
        march.traverse_kernel,
        [
            FLOATS,
            FLOATS,
            FLOATS,
            FLOATS,
            FLOATS,
            FLAGS,
            INTS,
            FLOATS,
            INTS,
            INTS,
            INTS,
            "fp32",
            "i32",
            "i32",
            "i32",
            "i32",
        ],
        {"LANES": 128},
        1,
    ),
    (
        composite.composite_kernel,
        [FLOATS, FLOATS, INTS, INTS, FLOATS, INTS, INTS, FLOATS, FLOATS, FLOATS, FLOATS, INTS, "fp32", "fp32", "fp32"],
        {"LANES": 64},
        1,
    ),
    (
        composite.composite_backward_kernel,
        [FLOATS, FLOATS, FLOATS, INTS, INTS, FLOATS, INTS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, "fp32"],
        {"LANES": 64},
        1,
    ),
    (
        image_rounds.march_kernel,
        [FLOATS, FLOATS, FLOATS, FLOATS, FLAGS, FLOATS, INTS, FLOATS, FLOATS, INTS, INTS, INTS, "fp32", "fp32"]
        + ["i32"] * 7,
        {"RAYS": 32},
        1,
    ),
    (
        image_rounds.composite_round_kernel,
        [FLOATS, FLOATS, INTS, INTS, FLOATS, INTS, INTS, FLOATS, FLOATS, FLOATS, FLOATS, "fp32", "fp32", "fp32", "i32"],
        {"RAYS": 32},
        1,
    ),
    (components.join_kernel, [FLAGS, INTS, "i32", "i32", "i32"], {"BLOCK": 256}, 4),
    (components.count_kernel, [FLAGS, INTS, INTS, "i32"], {"BLOCK": 256}, 4),
    (
        posed_grid.union_kernel,
        [FLAGS, FLOATS, FLOATS, FLOATS, FLOATS, FLAGS, "i32"],
        {**CANONICAL, "PX": 66, "PY": 72, "PZ": 38, "BONES": 24, "POSES": 16, "BLOCK": 64},
        4,
    ),
    (
        posed_grid.skin_kernel,
        [FLAGS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLAGS],
        {**CANONICAL, "BONES": 24, "MARKS": 97**3, "SHARE": 64, "BLOCK": 32},
        4,
    ),
    (
        posed_grid.mark_kernel,
        [FLAGS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, FLAGS],
        {**CANONICAL, "SIZE": 96, "SPACING": 2, "BLOCK": 1024},
        4,
    ),
    (posed_grid.spread_kernel, [FLAGS, FLAGS, "i32", "i32", "i32"], {"BLOCK": 1024}, 4),
    (row_adam.row_adam_kernel, [FLOATS] * 5 + ["fp32"] * 4 + ["i32"], {"WIDTH": 128}, 1),
]


def main() -> None:
    """Print a line a kernel: name, registers, bytes spilled."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    for kernel, types, constants, warps in KERNELS:
        names = [name for name in kernel.arg_names if name not in constants]
        # PyTorch's tensors are aligned.
        aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(types) if kind.startswith("*")}
        source = ASTSource(kernel, dict(zip(names, types, strict=True)), constants, aligned)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
        with tempfile.NamedTemporaryFile("w", suffix=".ptx") as ptx:
            ptx.write(compiled.asm["ptx"])
            ptx.flush()
            command = [tool, "-v", "-arch=sm_90a", ptx.name, "-o", "/dev/null"]
            report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        registers = int(re.findall(r"Used (\d+) registers", report)[0])
        spilled = sum(int(number) for number in re.findall(r"(\d+) bytes spill", report))
        print(kernel.__name__, registers, spilled)


if __name__ == "__main__":
    sys.exit(main())
