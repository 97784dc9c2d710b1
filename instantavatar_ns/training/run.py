"""One training from its configuration to its run's folder, as often as wanted in one process."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils import profiler, writer

from instantavatar_ns.training.step_progress import shown_steps
from instantavatar_ns.training.warm_up import wake_gpu


def train(config: TrainerConfig) -> Path:
    """Train in this process as ns-train does: the same numbers, and the same folder with config.yml and checkpoints.

    Nothing of it stays behind but PyTorch's, numpy's and Python's random states, which are set by the seed of each
    training; and what makes the next one begin sooner, such as compiled kernels.

    Args:
        config: Of one process; it is completed by the data's place and the run's time stamp.

    Returns:
        The run's folder.

    Raises:
        InputError: The data or the options cannot be used.
        ValueError: The configuration asks for several processes, which ns-train starts.
    """
    if config.machine.num_devices * config.machine.num_machines != 1:
        raise ValueError("train() trains by one process; several are started by ns-train --machine.num-devices")
    if config.machine.device_type == "cuda":
        wake_gpu()
    complete(config)
    config.save_config()
    with _writers_of_one_run():
        torch.backends.cudnn.benchmark = True
        random.seed(config.machine.seed)
        np.random.seed(config.machine.seed)  # noqa: NPY002 (what nerfstudio's code draws from)
        torch.manual_seed(config.machine.seed)
        trainer = config.setup(local_rank=0, world_size=1)
        try:
            trainer.setup()
            first = trainer._start_step
            with shown_steps(first, first + config.max_num_iterations):
                trainer.train()
        finally:
            profiler.flush_profiler(config.logging)
            del trainer
            gc.collect()  # trainers are cycles, and hold all frames
    return config.get_base_dir()


def complete(config: TrainerConfig) -> None:
    """Put `--data` where the data manager reads it, and the time into the run's name.

    Args:
        config: As the command line gives it.
    """
    if config.data:
        config.pipeline.datamanager.data = config.data
    config.set_timestamp()


@contextmanager
def _writers_of_one_run() -> Iterator[None]:
    """nerfstudio keeps its writers and profiler in globals, where those of an earlier run would go on writing."""
    benchmark = torch.backends.cudnn.benchmark
    _forget_writers()
    try:
        yield
    finally:
        _forget_writers()
        torch.backends.cudnn.benchmark = benchmark


def _forget_writers() -> None:
    for event_writer in writer.EVENT_WRITERS:
        tensorboard = getattr(event_writer, "tb_writer", None)
        if tensorboard is not None:
            tensorboard.close()
    writer.EVENT_WRITERS.clear()
    writer.EVENT_STORAGE.clear()
    writer.GLOBAL_BUFFER.clear()
    profiler.PROFILER.clear()
    profiler.PYTORCH_PROFILER = None
