"""nerfstudio's commands as a user starts them, and a training run that is small enough for tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
# What a CPU learns a 96-pixel person from in seconds: few rays, thick samples, a small field.
SMALL_TRAINING = [
    "instant-avatar-lite",
    *["--machine.device-type", "cpu"],
    *["--vis", "tensorboard"],
    *["--pipeline.datamanager.train-num-rays-per-batch", "256"],
    *["--pipeline.datamanager.pixel-shares", "0.4", "0.2", "0.4"],
    *["--pipeline.model.skinning-resolution", "48", "48", "12"],
    *["--pipeline.model.hash-levels", "8"],
    *["--pipeline.model.step-size", "0.03"],
    *["--pipeline.model.occupancy-warmup", "20"],
    *["--pipeline.model.density-noise-steps", "20"],
    *["--optimizers.field.optimizer.lr", "0.02"],
]
# What trains in a moment, for tests of what happens around the training: the person is hardly to be seen.
TINY_TRAINING = [
    *["--pipeline.datamanager.train-num-rays-per-batch", "128"],
    *["--pipeline.model.implementation", "torch"],
    *["--pipeline.model.hash-levels", "4"],
    *["--pipeline.model.skinning-resolution", "32", "32", "8"],
    *["--pipeline.model.step-size", "0.08"],
    *["--pipeline.model.occupancy-warmup", "4"],
    *["--pipeline.model.pose-start", "2"],
]


# Runs commands as a user would, each with its own arguments, in one process; then tells what was imported.
COMMANDS = """
import contextlib, json, sys
loaded = []
for name, arguments in json.loads(sys.argv[1]):
    sys.argv = [name, *arguments]
    if name == "ns-train":
        from nerfstudio.scripts.train import entrypoint
    else:
        from instantavatar_ns.scripts.main import entrypoint
    with contextlib.suppress(SystemExit):
        entrypoint()
    loaded.append([module for module in sys.modules])
print("\\n" + json.dumps(loaded))
"""


def training_arguments(data: Path, output: Path, steps: int, *more: str) -> list[str]:
    """Arguments of `ns-train` for a small run at `run_folder(output)`."""
    place = ["--output-dir", str(output), "--experiment-name", "person", "--timestamp", "run"]
    decay = ["--optimizers.field.scheduler.max-steps", str(steps)]
    arguments = [*SMALL_TRAINING, *place, "--max-num-iterations", str(steps), *decay, *more]
    return [*arguments, "--data", str(data), "instant-avatar-data"]


def run_folder(output: Path) -> Path:
    """Folder of the run that `training_arguments` leads to."""
    return output / "person" / "instant-avatar-lite" / "run"


def environment(folder: Path, gpu: bool = False) -> dict[str, str]:
    """Environment of commands: without a GPU or downloads, and with ffmpeg on PATH.

    Args:
        folder: Existing folder, in which ffmpeg is linked where the machine has none.
        gpu: Leave the machine's GPUs visible.
    """
    ffmpeg = folder / "ffmpeg"
    if shutil.which("ffmpeg") is None and not ffmpeg.exists():
        import imageio_ffmpeg

        ffmpeg.symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    path = os.pathsep.join([str(BIN), os.environ["PATH"], str(folder)])
    nowhere = "http://127.0.0.1:9"
    return {
        **os.environ,
        "PATH": path,
        **({} if gpu else {"CUDA_VISIBLE_DEVICES": ""}),
        "TORCH_HOME": str(folder),
        "https_proxy": nowhere,
        "http_proxy": nowhere,
        "COLUMNS": "200",
    }


def command(name: str) -> Path:
    """Path of a command of this environment; the test is skipped where it is not installed."""
    path = BIN / name
    if not path.exists():
        pytest.skip(f"{name} is not installed beside {sys.executable} (pip install -e .)")
    return path


def run_command(name: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment to its end.

    Args:
        name: Such as `ns-train`.
        arguments: Its arguments.
        folder: Where to run it.
    """
    line = [str(command(name)), *map(str, arguments)]
    return subprocess.run(
        line, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=600, check=False
    )


def run_here(folder: Path, *commands: tuple[str, list[str]]) -> tuple[str, list[set[str]]]:
    """Output of commands that run one after the other in a new process, and the modules after each."""
    line = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    done = subprocess.run(
        line, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stderr)
    output, _, modules = done.stdout.rstrip().rpartition("\n")
    return output, [set(names) for names in json.loads(modules)]
