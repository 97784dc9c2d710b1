"""Launching Triton kernels, on machines without a C compiler too.

Triton compiles kernels with what its wheel brings, but hands them to the GPU through C modules that it builds on the
user's machine when they are first needed. Where no compiler is installed, the CUDA driver is called directly here,
through the bindings that come with PyTorch.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sysconfig
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as compile_source
from triton.runtime.jit import JITFunction

_TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float64: "fp64",
    torch.uint8: "u8",
    torch.bool: "i1",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
}
_C_TYPES = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "fp32": ctypes.c_float}
_ALIGNED = 16  # bytes, or what a number is a multiple of: lets the compiler join neighbouring accesses
_DEFAULT_SHARED_MEMORY = 48 * 1024  # bytes that a block may take without asking


def launch(kernel: Any, grid: Sequence[int], *args: Tensor | int | float, num_warps: int = 4, **constants: int) -> None:
    """Launch a kernel on PyTorch's current stream, or run it in Triton's interpreter where that is switched on.

    Args:
        kernel: A function decorated with `triton.jit`.
        grid: Number of programs along up to three axes; nothing is launched where one of them is zero.
        args: Its arguments by position: tensors, whole numbers and floats.
        num_warps: Warps of a program.
        constants: Its `tl.constexpr` arguments.

    Raises:
        RuntimeError: There is neither a C compiler nor `cuda.bindings`; see `launcher`.
    """
    if not all(grid):
        return
    if knobs.runtime.interpret or launcher() == "triton":
        kernel[tuple(grid)](*args, num_warps=num_warps, **constants)
    else:
        _launch_through_driver(kernel, grid, args, num_warps, constants)


@cache
def launcher() -> str:
    """What launches kernels here: "triton" where there is a C compiler and Python's headers, else "driver".

    Raises:
        RuntimeError: Neither is there.
    """
    headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    if headers and (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "triton"
    if find_spec("cuda") is not None and find_spec("cuda.bindings") is not None:
        return "driver"
    raise RuntimeError(
        "Triton kernels cannot be launched: there is neither a C compiler with Python's headers nor the package "
        "cuda-bindings. Install one of them, for example with: pip install cuda-bindings"
    )


def signature(
    kernel: JITFunction, args: Sequence[Tensor | int | float], constants: dict[str, int]
) -> tuple[dict[str, str], dict[tuple[int, ...], list[list[Any]]]]:
    """Types of a kernel's arguments by name, and what is known of them, as Triton's compiler wants it.

    Raises:
        TypeError: The arguments are not those of the kernel.
    """
    names = [name for name in kernel.arg_names if name not in constants]
    if len(names) != len(args) or len(names) + len(constants) != len(kernel.arg_names):
        raise TypeError(f"{kernel.__name__} takes {kernel.arg_names}, got {len(args)} by position and {[*constants]}")
    types, attributes = {}, {}
    for name, value in zip(names, args, strict=True):
        if isinstance(value, Tensor):
            types[name] = "*" + _TYPES[value.dtype]
            aligned = value.data_ptr() % _ALIGNED == 0
        elif isinstance(value, float):
            types[name], aligned = "fp32", False
        else:
            types[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            aligned = value % _ALIGNED == 0
        if aligned:
            attributes[(kernel.arg_names.index(name),)] = [["tt.divisibility", _ALIGNED]]
    return types, attributes


_loaded: dict[tuple, tuple[Any, int]] = {}  # CUDA function and bytes of shared memory


def _launch_through_driver(
    kernel: JITFunction,
    grid: Sequence[int],
    args: Sequence[Tensor | int | float],
    num_warps: int,
    constants: dict[str, int],
) -> None:
    from cuda.bindings import driver

    types, attributes = signature(kernel, args, constants)
    device = torch.cuda.current_device()
    key = (kernel, device, num_warps, *types.values(), *attributes, *constants.values())
    if key not in _loaded:
        major, minor = torch.cuda.get_device_capability(device)
        source = ASTSource(kernel, {**types, **dict.fromkeys(constants, "constexpr")}, constants, attributes)
        target = GPUTarget("cuda", 10 * major + minor, 32)
        compiled = compile_source(source, target=target, options={"num_warps": num_warps})
        module = _checked(driver.cuModuleLoadData(compiled.asm["cubin"]))
        function = _checked(driver.cuModuleGetFunction(module, compiled.metadata.name.encode()))
        shared = compiled.metadata.shared
        if shared > _DEFAULT_SHARED_MEMORY:
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _checked(driver.cuFuncSetAttribute(function, attribute, shared))
        _loaded[key] = function, shared
    function, shared = _loaded[key]
    values = [value.data_ptr() if isinstance(value, Tensor) else value for value in args]
    c_types = [ctypes.c_void_p if name.startswith("*") else _C_TYPES[name] for name in types.values()]
    # Two pointers to scratch memory follow, which no kernel of this package uses.
    parameters = (tuple([*values, 0, 0]), tuple([*c_types, ctypes.c_void_p, ctypes.c_void_p]))
    x, y, z = [*grid, 1, 1][:3]
    stream = torch.cuda.current_stream().cuda_stream
    _checked(driver.cuLaunchKernel(function, x, y, z, 32 * num_warps, 1, 1, shared, stream, parameters, 0))


def _checked(result: tuple) -> Any:
    """The value that a call of the driver returned.

    Raises:
        RuntimeError: The call failed.
    """
    error, *values = result
    if int(error) != 0:
        raise RuntimeError(f"CUDA driver: {error.name}")
    return values[0] if values else None
