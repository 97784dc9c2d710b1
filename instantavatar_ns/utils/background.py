"""Work that begins in a thread of its own while its result is not needed yet."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


def begin(work: Callable[[], Result], device: torch.device | str) -> Future[Result]:
    """Begin some work in a new thread, which ends with it.

    Args:
        work: What to do. Random numbers must come from a generator of its own: others may draw meanwhile.
        device: What it computes on. A GPU becomes the thread's current one, which otherwise would be the first.

    Returns:
        What waits for the result. An error of the work is raised where the result is asked for.
    """
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:  # the current one of this thread
        device = torch.device("cuda", torch.cuda.current_device())
    pool = ThreadPoolExecutor(1, "background", _use, (device,))
    try:
        return pool.submit(work)
    finally:
        pool.shutdown(wait=False)


def _use(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
