"""Training by several processes without GPUs: nerfstudio's launcher starts more than one on GPUs alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from torch import distributed, multiprocessing

from benchmarks import training

if TYPE_CHECKING:
    from instantavatar_ns.trainer import AvatarTrainer


def start(train_arguments: list[str], processes: int, main: Callable[[AvatarTrainer], None]) -> Path:
    """Run `main` in processes that have done what ns-train does before its first step; returns the run's folder.

    They are forked, so that nothing is imported anew: this process must not have computed anything in threads before.

    Args:
        train_arguments: Arguments of ns-train.
        processes: Number of processes.
        main: What each does with its trainer.
    """
    import nerfstudio.scripts.train  # noqa: F401  Once, before the fork.

    with TemporaryDirectory() as folder:
        arguments = (train_arguments, processes, Path(folder, "rendezvous"), main)
        multiprocessing.start_processes(_work, arguments, processes, start_method="fork")
    return training.run_folder(train_arguments)


def _work(
    rank: int, train_arguments: list[str], processes: int, rendezvous: Path, main: Callable[[AvatarTrainer], None]
) -> None:
    from nerfstudio.utils import comms

    if processes > 1:
        method = f"file://{rendezvous}"
        distributed.init_process_group("gloo", init_method=method, world_size=processes, rank=rank)
        comms.LOCAL_PROCESS_GROUP = distributed.group.WORLD
    main(training.set_up(train_arguments, rank, processes))
    if processes > 1:
        distributed.barrier()
        distributed.destroy_process_group()
