"""Launch kernels through a CUDA driver that only notes what it is asked, on a machine that need not have any GPU.

    python -m tests.kernels.driver_launches

Prints, as JSON, what the driver was given and the microseconds that a launch takes without it. Run by `test_launch.py`
in a process of its own, since Triton decides once per process whether it interprets.
"""

from __future__ import annotations

import ctypes
import json
import struct
import threading
import time
from typing import Any

import torch
import triton
import triton.language as tl
from cuda.bindings import driver

from instantavatar_ns.kernels import launch as launch_module
from instantavatar_ns.kernels.launch import launch, signature

SUCCESS = driver.CUresult.CUDA_SUCCESS


@triton.jit(do_not_specialize=["n"])
def many_kernel(
    a, b, c, d, e, f, g, h, big, small, none, out, scale, n, COUNT: tl.constexpr, FLAG: tl.constexpr, NAME: tl.constexpr
):
    """Takes arguments of all kinds, and does something with each."""
    value = tl.load(a) + tl.load(b) + tl.load(c) + tl.load(d) + tl.load(e) + tl.load(f) + tl.load(g) + tl.load(h)
    value = value * scale + (big % 1000).to(tl.float32) + small.to(tl.float32)
    if none is not None:
        value += tl.load(none)
    if FLAG and NAME == "yes":
        tl.store(out + tl.arange(0, COUNT), value, mask=tl.arange(0, COUNT) < n)


class Driver:
    """Notes launches."""

    def __init__(self) -> None:
        self.cubins: list[bytes] = []
        self.launches: list[tuple[Any, ...]] = []
        self.contexts: list[str] = []
        self.noting = True

    def cuModuleLoadData(self, cubin: bytes) -> tuple[Any, int]:
        self.cubins.append(cubin)
        return SUCCESS, len(self.cubins)

    def cuModuleGetFunction(self, module: int, name: bytes) -> tuple[Any, int]:
        assert name in self.cubins[module - 1]
        return SUCCESS, 100 + module

    def cuCtxGetCurrent(self) -> tuple[Any, int]:
        return SUCCESS, 7 if threading.current_thread() is threading.main_thread() else 0

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, str]:
        return SUCCESS, f"context of {device}"

    def cuCtxSetCurrent(self, context: str) -> tuple[Any]:
        self.contexts.append(context)
        return (SUCCESS,)

    def cuLaunchKernel(self, function: int, *args: int) -> tuple[Any]:
        if self.noting:
            pointers = ctypes.cast(args[8], ctypes.POINTER(ctypes.c_void_p))
            self.launches.append((function, *args[:8], [pointers[place] for place in range(15)]))
        return (SUCCESS,)


def read(pointer: int, kind: str) -> Any:
    return struct.unpack(kind, ctypes.string_at(pointer, struct.calcsize(kind)))[0]


def main() -> None:
    """Launch and print."""
    fake = Driver()
    launch_module._driver = lambda: fake  # pyright: ignore[reportAttributeAccessIssue]
    launch_module.launcher = lambda: "driver"  # pyright: ignore[reportAttributeAccessIssue]
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_capability = lambda device=None: (9, 0)
    stream = type("Stream", (), {"cuda_stream": 42})()
    torch.cuda.current_stream = lambda device=None: stream

    tensors = [torch.zeros(17) for _ in range(8)]
    out = torch.zeros(32)
    sizes = {"COUNT": 32, "FLAG": True, "NAME": "yes"}

    def run(none: torch.Tensor | None = None, n: int = 8, out: torch.Tensor = out, **changed: Any) -> None:
        constants = {**sizes, **changed}
        launch(many_kernel, (3, 2), *tensors, 2**40, 5, none, out, 0.5, n, num_warps=2, num_stages=1, **constants)

    run()
    first = fake.launches[0]
    kinds = "P" * 8 + "qi" + "P" + "fi" + "PP"
    arguments = [read(pointer, kind) for pointer, kind in zip(first[9], kinds, strict=True)]
    run(n=16)  # not specialised, so the same code
    run(none=out)
    run(out=out[1:])
    run(FLAG=False)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    _, attributes = signature(many_kernel, (*tensors, 2**40, 5, None, out[1:], 0.5, 16), sizes)
    report = {
        "aligned": [many_kernel.arg_names[place] for (place,) in attributes],
        "first": first[:9],
        "arguments": arguments,
        "expected": [*(tensor.data_ptr() for tensor in tensors), 2**40, 5, out.data_ptr(), 0.5, 8, 0, 0],
        "functions": [each[0] for each in fake.launches],
        "different_codes": len(set(fake.cubins)),
        "contexts": fake.contexts,
    }
    fake.noting = False
    report["microseconds"] = min(timed(run) for _ in range(5))
    print(json.dumps(report))


def timed(run: Any, times: int = 2000) -> float:
    start = time.perf_counter()
    for _ in range(times):
        run()
    return 1e6 * (time.perf_counter() - start) / times


if __name__ == "__main__":
    main()
