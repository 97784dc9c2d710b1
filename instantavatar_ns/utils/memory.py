"""Memory of a device and of the host: how much is free, and tensors that lie in either and are read on the device."""

from __future__ import annotations

import mmap
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instantavatar_ns.utils.errors import InputError

DEVICE_SHARE = 0.5
"""Share of the device's free memory that data may take: what is trained needs the rest."""
HOST_SHARE = 0.8
"""The same of the host's."""
LESS_DATA = (
    "Give a larger --downscale (twice as large: a quarter of the memory), or fewer frames by --train-frames FIRST END "
    "STRIDE, both after the name of the data format"
)
"""Advice for whom memory does not suffice."""
_CGROUP = Path("/sys/fs/cgroup")  # version 2: what a container may use, where it may not use all
_NO_MEMORY = re.compile("can't allocate memory|out of memory")  # of PyTorch on a CPU, of the CUDA runtime
_PORTABLE_AND_MAPPED = 3  # cudaHostRegister's flags: locked for all devices, and read by their kernels
_TYPES = {torch.uint8: "|u1", torch.int32: "<i4"}  # as NumPy writes them


def written_size(size: float) -> str:
    """Write a number of bytes in decimal megabytes or gigabytes."""
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def free_bytes(device: torch.device) -> int:
    """Memory that a process may still take on a device; that of the host for a CPU, without swap."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    import psutil  # comes with viser, which nerfstudio needs; imported where it is used

    return min([psutil.virtual_memory().available, *_free_in_container()])


def _free_in_container() -> list[int]:
    """Bytes that the container's limit leaves, cached files counted as free; empty if it has no limit."""
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return [] if limit == "max" else [int(limit) - int(used) + int(statistics["inactive_file"])]
    except (OSError, KeyError, ValueError):
        return []


def roomy_device(size: int, device: torch.device) -> torch.device:
    """Return a device where it has so many bytes to spare for data, and otherwise the CPU.

    Args:
        size: Bytes of the data.
        device: Preferred device.
    """
    return device if size <= DEVICE_SHARE * free_bytes(device) else torch.device("cpu")


def check_host_memory(what: str, size: int) -> None:
    """Make sure that the host has memory to spare before it is taken: a process that takes too much is killed.

    Args:
        what: What needs it, for the message.
        size: Bytes.

    Raises:
        InputError: There is too little.
    """
    free = free_bytes(torch.device("cpu"))
    if size > HOST_SHARE * free:
        message = f"expected {written_size(size)} of the host's memory for them, found {written_size(free)} free"
        raise InputError(what, message, LESS_DATA)


@contextmanager
def lack_of_memory_explained(device: str) -> Iterator[None]:
    """Say what to do when memory runs out.

    Args:
        device: Where most of it is taken.

    Raises:
        InputError: In place of the error of PyTorch, NumPy or CUDA.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        of_device = isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error)
        place = torch.device(device if of_device else "cpu")
        message = f"expected enough memory, found {written_size(free_bytes(place))} free where more was needed"
        advice = (
            f"End what else uses it. {LESS_DATA}; or fewer rays a step, by --pipeline.datamanager."
            "train-num-rays-per-batch"
        )
        raise InputError(f"memory of {place}" if of_device else "memory of the host", message, advice) from error


def join(parts: list[Tensor], device: torch.device, in_host_memory: bool) -> Tensor:
    """Concatenate tensors along their first dimension, and free each as soon as it is copied.

    Args:
        parts: At least one; of one type and, but for their length, one shape. The list is empty afterwards.
        device: Where the result is read.
        in_host_memory: Keep the result in page-locked host memory, which kernels on the device read over the bus. What
            is read is then all that moves: a few thousand pixels a step are done before a whole frame would be copied.
            Works in CUDA graphs, too, as the result is a tensor on the device like any other.
    """
    shape, kind = (sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype
    size = kind.itemsize * torch.Size(shape).numel()
    in_host_memory = in_host_memory and size > 0
    if in_host_memory:
        # Whole pages that nothing else lies on: these are what is locked. They become memory as they are written.
        result = torch.frombuffer(mmap.mmap(-1, size), dtype=kind).view(shape)
    else:
        result = torch.empty(shape, dtype=kind, device=device)
    place = 0
    parts.reverse()
    while parts:
        part = parts.pop()
        result[place : place + len(part)] = part
        place += len(part)
    return _on_device(result, device) if in_host_memory and device.type == "cuda" else result


class _PageLocked:
    """Host memory as PyTorch takes it for an array on the device: both have the same addresses."""

    def __init__(self, host: Tensor) -> None:
        self.__cuda_array_interface__ = {
            "shape": tuple(host.shape),
            "typestr": _TYPES[host.dtype],
            "data": (host.data_ptr(), False),
            "version": 3,
        }


def _on_device(host: Tensor, device: torch.device) -> Tensor:
    """Lock a tensor's pages, until it is freed, and return it as a tensor on a device."""
    with torch.cuda.device(device):
        cudart = _cudart()
        size = host.numel() * host.element_size()
        torch.cuda.check_error(cudart.cudaHostRegister(host.data_ptr(), size, _PORTABLE_AND_MAPPED))
        locked = _PageLocked(host)  # which the result holds on to
        unlock = weakref.finalize(locked, _unlock, host)
        unlock.atexit = False  # the driver may have gone before
        return torch.as_tensor(locked, device=device)


def _cudart() -> Any:
    """Functions of the CUDA runtime, whose types PyTorch does not tell."""
    return torch.cuda.cudart()


def _unlock(host: Tensor) -> None:
    _cudart().cudaHostUnregister(host.data_ptr())
