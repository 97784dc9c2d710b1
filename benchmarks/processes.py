"""Training by several processes on one device: nerfstudio's launcher gives each a GPU of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from torch import distributed, multiprocessing

from benchmarks import training

if TYPE_CHECKING:
    from instantavatar_ns.trainer import AvatarTrainer


def start(
    train_arguments: list[str], processes: int, main: Callable[[AvatarTrainer], None], device: str = "cpu"
) -> Path:
    """Run `main` in processes that have done what ns-train does before its first step; returns the run's folder.

    They exchange tensors through gloo, which, unlike NCCL, takes those of several processes on one GPU. On the CPU they
    are forked, so that nothing is imported anew: this process must not have computed anything in threads before. On a
    GPU, which outlives no fork, each imports everything itself, and `main` must be a function that can be pickled.

    Args:
        train_arguments: Arguments of ns-train.
        processes: Number of processes.
        main: What each does with its trainer.
        device: "cpu" or a GPU such as "cuda:0", which all processes share.
    """
    if device == "cpu":
        import nerfstudio.scripts.train  # noqa: F401  Once, before the fork.

    with TemporaryDirectory() as folder:
        arguments = (train_arguments, processes, Path(folder, "rendezvous"), main, device)
        method = "fork" if device == "cpu" else "spawn"
        multiprocessing.start_processes(_work, arguments, processes, start_method=method)
    return training.run_folder(train_arguments)


def _work(
    rank: int,
    train_arguments: list[str],
    processes: int,
    rendezvous: Path,
    main: Callable[[AvatarTrainer], None],
    device: str,
) -> None:
    from nerfstudio.utils import comms

    if processes > 1:
        method = f"file://{rendezvous}"
        distributed.init_process_group("gloo", init_method=method, world_size=processes, rank=rank)
        comms.LOCAL_PROCESS_GROUP = distributed.group.WORLD
    main(training.set_up(train_arguments, rank, processes, device))
    if processes > 1:
        distributed.barrier()
        distributed.destroy_process_group()
