"""Launching Triton kernels, on machines without a C compiler too.

Triton compiles kernels with what its wheel brings, but hands them to the GPU through C modules that it builds on the
user's machine when they are first needed. Where no compiler is installed, the CUDA driver is called directly here,
through the bindings that come with PyTorch.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import sys
import sysconfig
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as compile_source
from triton.runtime.jit import JITFunction

Argument = Tensor | int | float | None
Constant = int | str

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
_C_FORMATS = {"i32": "i", "i64": "q", "fp32": "f"}
_POINTER = "P"
_ALIGNED = 16  # bytes, or what a number is a multiple of: lets the compiler join neighbouring accesses
_DEFAULT_SHARED_MEMORY = 48 * 1024  # bytes that a block may take without asking


def keep_modules_apart() -> None:
    """Have each C module that Triton loads be a module of its own: those that launch kernels all have one name.

    Python keeps such modules by name. Where one is loaded from a file for the second time, because two kernels have
    arguments of the same kinds, it hands out the module that was loaded last under the name, with the functions of that
    file put in. So threads that prepare kernels side by side may get each other's: a kernel is launched with the
    arguments of another ("function takes exactly 19 arguments (31 given)").
    """
    from triton.runtime import build

    load: Callable[[str, str], ModuleType] | None = getattr(build, "_load_module_from_path", None)
    if load is None or getattr(load, "keeps_apart", False):  # the name is no promise of Triton's
        return
    lock = threading.Lock()

    def load_apart(name: str, path: str) -> ModuleType:
        with lock:
            module = load(name, path)
            sys.modules.pop(name, None)
        return module

    load_apart.keeps_apart = True  # pyright: ignore[reportFunctionMemberAccess]
    build._load_module_from_path = load_apart  # pyright: ignore[reportAttributeAccessIssue]


keep_modules_apart()

# Triton declares that these might return constants of kernels, which is so only within kernels.
_triton: Any = triton
cdiv: Callable[[int, int], int] = _triton.cdiv
next_power_of_2: Callable[[int], int] = _triton.next_power_of_2


def launch(
    kernel: Any,
    grid: Sequence[int],
    *args: Argument,
    num_warps: int = 4,
    num_stages: int = 3,
    fuse: int = True,  # a bool; constants, which callers pass on in dictionaries, are numbers
    **constants: Constant,
) -> None:
    """Launch a kernel on PyTorch's current stream, or run it in Triton's interpreter where that is switched on.

    Args:
        kernel: A function decorated with `triton.jit`.
        grid: Number of programs along up to three axes; nothing is launched where one of them is zero.
        args: Its arguments by position: tensors, whole numbers, floats, and None for a tensor that it can do without.
        num_warps: Warps of a program.
        num_stages: Turns of a loop whose loads are under way at once.
        fuse: Let the compiler join products and sums. Not where sums over several lanes decide how long a loop runs:
            each lane would join its own product with the rounded ones of the others, the lanes' sums would differ in
            the last bit, and lanes that leave a loop before the others keep these waiting for ever.
        constants: Its `tl.constexpr` arguments.

    Raises:
        RuntimeError: There is neither a C compiler nor `cuda.bindings`; see `launcher`.
        TypeError: The arguments are not those of the kernel.
    """
    if not all(grid):
        return
    if not isinstance(kernel, JITFunction) or launcher() == "triton":
        options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": fuse}
        kernel[tuple(grid)](*args, **options, **constants)
    else:
        _launch_through_driver(kernel, grid, args, _Options(num_warps, num_stages, fuse), constants)


class _Options(NamedTuple):
    """Options of a kernel's compilation."""

    num_warps: int
    num_stages: int
    enable_fp_fusion: bool


@cache
def launcher() -> str:
    """Name of the launcher of kernels: "triton" with a C compiler and Python's headers, else "driver".

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
    kernel: JITFunction, args: Sequence[Argument], constants: dict[str, Constant]
) -> tuple[dict[str, str], dict[tuple[int, ...], list[list[Any]]]]:
    """Types of a kernel's arguments by name, and what is known of them, as Triton's compiler wants it.

    Args:
        kernel: The kernel.
        args: Its arguments by position, as `launch` takes them.
        constants: Its `tl.constexpr` arguments by name.

    Returns:
        Types by name, and by the place of an argument that is a multiple of `_ALIGNED`, the attribute that says so.

    Raises:
        TypeError: The arguments are not those of the kernel, or a constant is given by position.
    """
    names = [name for name in kernel.arg_names if name not in constants]
    by_position = {kernel.arg_names[place] for place in getattr(kernel, "constexprs", ())}.intersection(names)
    if len(names) != len(args) or len(names) + len(constants) != len(kernel.arg_names) or by_position:
        raise TypeError(f"{kernel.__name__} takes {kernel.arg_names}, got {len(args)} by position and {[*constants]}")
    general = getattr(kernel, "do_not_specialize", ())
    types, attributes = {}, {}
    for name, value in zip(names, args, strict=True):
        aligned = False
        if value is None:
            types[name] = "constexpr"
        elif isinstance(value, Tensor):
            types[name] = "*" + _TYPES[value.dtype]
            aligned = value.data_ptr() % _ALIGNED == 0
        elif isinstance(value, float):
            types[name] = "fp32"
        else:
            types[name] = "i32" if _is_int32(value) else "i64"
            aligned = name not in general and value % _ALIGNED == 0
        if aligned:
            attributes[(kernel.arg_names.index(name),)] = [["tt.divisibility", _ALIGNED]]
    return types, attributes


def _is_int32(value: int) -> bool:
    return -(2**31) <= value < 2**31


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A kernel on a device.

    Attributes:
        function: What the driver launches.
        shared: Bytes of shared memory of a program.
        packer: Writes the arguments as C does.
        storage: Where it writes them.
        pointers: Where each of them lies there ...
        address: ... and where these pointers lie.
    """

    function: Any
    shared: int
    packer: struct.Struct
    storage: Any
    pointers: Any
    address: int


_loaded: dict[tuple, _Loaded] = {}
_lock = threading.Lock()  # a viewer's thread may launch the same kernel, whose arguments have one place in memory
_thread = threading.local()


def _launch_through_driver(
    kernel: JITFunction,
    grid: Sequence[int],
    args: Sequence[Argument],
    options: _Options,
    constants: dict[str, Constant],
) -> None:
    """Some 20 launches make a step, so that what a launch costs the host counts: no more is done than must be."""
    driver, device = _driver(), torch.cuda.current_device()
    # Whatever the compiled kernel depends on, and maybe a little more.
    key: list[Any] = [kernel, device, options, *constants.items()]
    values: list[int | float] = []
    for value in args:
        if isinstance(value, Tensor):
            pointer = value.data_ptr()
            values.append(pointer)
            key.append(value.dtype)
            key.append(pointer % _ALIGNED == 0)
        elif value is None:
            key.append(None)
        else:
            values.append(value)
            key.append("float" if isinstance(value, float) else (_is_int32(value), value % _ALIGNED == 0))
    found = tuple(key)
    if not hasattr(_thread, "has_context"):
        _give_context(device)
    loaded = _loaded.get(found)
    if loaded is None:
        # Not under the lock: compiling takes seconds, and threads compile different kernels side by side.
        loaded = _loaded.setdefault(found, _load(kernel, device, args, options, constants))
    with _lock:
        loaded.packer.pack_into(loaded.storage, 0, *values, 0, 0)
        x, y, z = (*grid, 1, 1)[:3]
        stream = torch.cuda.current_stream(device).cuda_stream
        error = driver.cuLaunchKernel(
            loaded.function, x, y, z, 32 * options.num_warps, 1, 1, loaded.shared, stream, loaded.address, 0
        )
    _checked(error)


def _load(
    kernel: JITFunction,
    device: int,
    args: Sequence[Argument],
    options: _Options,
    constants: dict[str, Constant],
) -> _Loaded:
    driver = _driver()
    types, attributes = signature(kernel, args, constants)
    absent = {name: None for name, kind in types.items() if kind == "constexpr"}
    major, minor = torch.cuda.get_device_capability(device)
    source = ASTSource(kernel, {**types, **dict.fromkeys(constants, "constexpr")}, {**constants, **absent}, attributes)
    compiled = compile_source(source, target=GPUTarget("cuda", 10 * major + minor, 32), options=options._asdict())
    module = _checked(driver.cuModuleLoadData(compiled.asm["cubin"]))
    function = _checked(driver.cuModuleGetFunction(module, compiled.metadata.name.encode()))
    shared = compiled.metadata.shared
    if shared > _DEFAULT_SHARED_MEMORY:
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(function, attribute, shared))

    kinds = [_POINTER if kind.startswith("*") else _C_FORMATS[kind] for kind in types.values() if kind != "constexpr"]
    # Two pointers to scratch memory follow, which no kernel of this package uses.
    formats = "@" + "".join(kinds) + 2 * _POINTER
    storage = ctypes.create_string_buffer(struct.calcsize(formats))
    ends = [struct.calcsize(formats[: end + 1]) for end in range(1, len(formats))]
    starts = [end - struct.calcsize(kind) for end, kind in zip(ends, formats[1:], strict=True)]
    pointers = (ctypes.c_void_p * len(starts))(*(ctypes.addressof(storage) + start for start in starts))
    return _Loaded(function, shared, struct.Struct(formats), storage, pointers, ctypes.addressof(pointers))


def _give_context(device: int) -> None:
    """Make PyTorch's context the current one in a thread in which nothing has done so yet."""
    driver = _driver()
    if int(_checked(driver.cuCtxGetCurrent())) == 0:
        _checked(driver.cuCtxSetCurrent(_checked(driver.cuDevicePrimaryCtxRetain(device))))
    _thread.has_context = True


@cache
def _driver() -> ModuleType:
    from cuda.bindings import driver

    return driver


def _checked(result: tuple) -> Any:
    """The value that a call of the driver returned.

    Raises:
        RuntimeError: The call failed.
    """
    if int(result[0]) != 0:
        raise RuntimeError(f"CUDA driver: {result[0].name}")
    return result[1] if len(result) > 1 else None
