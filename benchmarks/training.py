"""Training by ns-train, in a process of its own or step by step in this one; imported before nerfstudio."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from instantavatar_ns.trainer import AvatarTrainer

# From a checkout that is not installed: the variables that nerfstudio reads in place of entry points.
if not any(point.name == "instant-avatar" for point in entry_points(group="nerfstudio.method_configs")):
    parser = "instantavatar_ns.data.instantavatar_dataparser:instant_avatar_data"
    methods = ("instant-avatar", "instant-avatar-lite", "instant-avatar-wild")
    named = [f"{name}=instantavatar_ns.config:{name.replace('-', '_')}" for name in methods]
    os.environ["NERFSTUDIO_METHOD_CONFIGS"] = ",".join(named)
    os.environ["NERFSTUDIO_DATAPARSER_CONFIGS"] = f"instant-avatar-data={parser}"

NS_TRAIN = (sys.executable, "-W", "ignore", "-m", "nerfstudio.scripts.train")


def arguments(
    method: str,
    subject: Path,
    runs: Path,
    name: str,
    steps: int | None,
    *options: str,
    data_options: tuple[str, ...] = (),
) -> list[str]:
    """Arguments of ns-train for a run at `runs/name/method/run`.

    Args:
        method: instant-avatar or instant-avatar-lite.
        subject: Folder in InstantAvatar's layout.
        runs: Where runs go.
        name: Of the run.
        steps: Training steps, over which the learning rates decay; by default the method's.
        options: Further options of ns-train.
        data_options: Options of the data parser.
    """
    result = [method, "--output-dir", str(runs), "--experiment-name", name, "--timestamp", "run"]
    result += ["--vis", "tensorboard"]
    if not torch.cuda.is_available():
        result += ["--machine.device-type", "cpu"]
    if steps is not None:
        result += ["--max-num-iterations", str(steps)]
        for group in ("field", "poses"):
            result += [f"--optimizers.{group}.scheduler.max-steps", str(steps)]
    return [*result, *options, "--data", str(subject), "instant-avatar-data", *data_options]


def scaled_schedules(config: Any, steps: int) -> list[str]:
    """Options of ns-train by which what begins and ends at some steps keeps its place in a shorter or longer training.

    Args:
        config: Of the method.
        steps: Of the training.
    """
    options = []
    schedules = {
        "model": ("pose_start", "density_noise_steps", "empty_steps"),
        "datamanager": ("late_rays_start", "surroundings_end"),
    }
    for owner, names in schedules.items():
        for name in names:
            value = getattr(getattr(config.pipeline, owner), name) * steps / config.max_num_iterations
            options += [f"--pipeline.{owner}.{name.replace('_', '-')}", str(round(value))]
    return options


def train(train_arguments: list[str], timeout: float | None = None) -> Path:
    """Run ns-train in a process of its own; returns the run's folder."""
    subprocess.run([*NS_TRAIN, *train_arguments], check=True, stdout=subprocess.DEVNULL, timeout=timeout)
    return run_folder(train_arguments)


def train_here(train_arguments: list[str]) -> Path:
    """Do what ns-train does in this process, which has nerfstudio imported already; returns the run's folder."""
    set_up(train_arguments).train()
    gc.collect()  # trainers are cycles, and hold all frames
    return run_folder(train_arguments)


def run_folder(train_arguments: list[str]) -> Path:
    """Where a run of ns-train writes."""
    values = dict(pairwise(train_arguments))
    return Path(values["--output-dir"], values["--experiment-name"], train_arguments[0], "run")


def set_up(train_arguments: list[str], rank: int = 0, processes: int = 1, device: str | None = None) -> AvatarTrainer:
    """Do what ns-train does before its first step, in one of several processes.

    Args:
        train_arguments: Arguments of ns-train.
        rank: Number of this process.
        processes: Number of processes.
        device: Where to train; by default as the arguments say, which on GPUs is the one of the process's number.
    """
    import tyro
    from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion
    from nerfstudio.scripts.train import _set_random_seed
    from nerfstudio.utils import writer

    # nerfstudio keeps the writers of earlier trainers of the process.
    writer.EVENT_WRITERS.clear()
    writer.EVENT_STORAGE.clear()
    config = tyro.cli(AnnotatedBaseConfigUnion, args=train_arguments)
    config.pipeline.datamanager.data = config.data
    config.set_timestamp()
    if device is not None:
        config.machine.device_type = device  # nerfstudio adds the process's number to "cuda" only
    if rank == 0:
        config.save_config()
    _set_random_seed(config.machine.seed + rank)
    trainer = config.setup(local_rank=rank, world_size=processes)
    trainer.setup()
    return trainer


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
