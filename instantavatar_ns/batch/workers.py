"""Number of a batch's workers, and each one's share of a GPU and of the processors."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from instantavatar_ns.utils.errors import InputError

MOST_PER_GPU = 6
"""More trainings than that on one GPU slow each other down."""
# Of a process that trains, measured on an H200: 1.4 GB of tensors and graphs, and CUDA's own.
_AVATAR_GIGABYTES = 2.0
_USABLE_SHARE = 0.9


@dataclass(frozen=True)
class Node:
    """A machine: its processors and its GPUs."""

    cpus: float
    gpus: int


@dataclass(frozen=True)
class WorkerPlan:
    """The workers of a batch.

    Attributes:
        count: Number of workers, which are processes.
        cpus: Processors of each.
        gpu: Share of a GPU of each; 0 trains on processors.
    """

    count: int
    cpus: float
    gpu: float


def plan_workers(nodes: Sequence[Node], subjects: int, per_gpu: int, most: int | None = None) -> WorkerPlan:
    """Return how many workers there are and what each has.

    Where any machine has a GPU, all workers have a share of one. Else each has a processor, and more where there are
    fewer subjects.

    Args:
        nodes: The machines.
        subjects: Number of subjects that have something to be done.
        per_gpu: Workers that share a GPU.
        most: Most workers.

    Raises:
        InputError: The machines have no processor for a worker.
    """
    on_gpus = any(node.gpus for node in nodes)
    used = [node for node in nodes if (node.gpus if on_gpus else node.cpus) >= 1]
    if not used:
        message = f"expected a processor or a GPU for a worker, found {len(nodes)} machines without"
        raise InputError("--address", message, "Add a machine to the cluster")
    places = [node.gpus * per_gpu if on_gpus else int(node.cpus) for node in used]
    if most is not None and not on_gpus and len(used) == 1:
        places = [most]  # more than processors, if somebody wants them
    count = min(sum(places), subjects, most or subjects)
    if len(used) == 1:
        places = [count]  # of one machine all that is there can be shared out
    cpus = min(node.cpus / place for node, place in zip(used, places, strict=True))
    # Ray takes whole processors, or a part of one; and parts of a GPU in ten thousandths.
    cpus = float(math.floor(cpus)) if cpus >= 1 else math.floor(cpus * 100) / 100
    return WorkerPlan(count, cpus, math.floor(1e4 / per_gpu) / 1e4 if on_gpus else 0.0)


def avatars_per_gpu(megabytes: float | None) -> int:
    """Return how many avatars a GPU of that memory can train at once; None is a GPU of unknown memory."""
    if megabytes is None:
        return MOST_PER_GPU
    return max(1, min(MOST_PER_GPU, int(_USABLE_SHARE * megabytes / 1000 / _AVATAR_GIGABYTES)))


def gpu_megabytes() -> float | None:
    """Memory of this machine's smallest GPU; None where the driver's tool does not tell."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return min(float(line) for line in told.splitlines() if line.strip())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
