"""Runs of a benchmark: one after another in this process, or several at once in others that share the GPUs.

Trainings that run at once on one GPU slow each other down, so their seconds are worth comparing among themselves only.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from multiprocessing.queues import Queue
from time import time
from typing import Any, TypeVar

import torch

from benchmarks.in_process import made_once

Job = TypeVar("Job", bound=tuple[Any, ...])
Measure = Callable[..., dict[str, Any]]


def run_jobs(
    measure: Measure, jobs: Sequence[Job], workers: int, budget: float
) -> Iterator[tuple[Job, dict[str, Any] | None]]:
    """Yield each job with its figures, in the order in which they end.

    Of a job that failed the figures are `{"failed": reason}`, of one that would have begun too late None.

    Args:
        measure: Called with the parts of a job; pickled where there are several workers.
        jobs: Arguments of `measure`, in the order in which to begin.
        workers: Processes; 1 is this one. They share the GPUs evenly.
        budget: Seconds after which no further job is begun.
    """
    end = time() + budget
    if workers == 1:
        with made_once():
            for job in jobs:
                yield job, _attempt(measure, job, end)
        return
    context = get_context("spawn")
    devices, gpus = context.Queue(), visible_gpus()
    for worker in range(workers):
        devices.put(gpus[worker % len(gpus)])
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(devices,)) as pool:
        futures = {pool.submit(_attempt, measure, job, end): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them; one empty name of none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(torch.cuda.device_count())] if chosen is None else chosen.split(",")
    return names or [""]


def _start(devices: Queue[str]) -> None:
    """Take a GPU, before PyTorch looks for one, and keep what all runs of this process share."""
    os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()
    made_once().__enter__()


def _attempt(measure: Measure, job: tuple[Any, ...], end: float) -> dict[str, Any] | None:
    if time() > end:
        return None
    try:
        return measure(*job)
    except Exception as error:  # one run shall not cost the others; a later call tries it again
        return {"failed": f"{type(error).__name__}: {error}"}
    finally:
        gc.collect()  # trainers are cycles, and hold all frames
