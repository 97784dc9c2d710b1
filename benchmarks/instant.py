"""Seconds from Enter to a finished avatar, one part a subcommand; figures are merged into one file.

    python -m benchmarks.instant start --subject path/to/dev-male

`help` times `instant-avatar train --help`: `help_s`, on `help_cores`.

`start` times processes from their start to their end: `enter_warm_s` and `enter_cold_s` of `instant-avatar train`, and
`ns_train_warm_s` of `ns-train` with the same flags. "Cold" has empty caches of Triton's kernels, PyTorch's extensions
and NVIDIA's driver, as a machine where the packages have just been installed: pip has compiled Python's bytecode. Files
stay in the page cache, which only the machine's administrator can drop. A run of each comes first that is not timed, so
that the others find warm caches. The PSNR of each avatar on the novel motion is found afterwards, and is not part of
any time.

`parts` tells when the parts of such a training begin and end, warm: `parts_s`, seconds since Enter.

`check` times the check of the data before training: `check_s`, of `check_frames` frames.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, time
from typing import Any

import tyro

from benchmarks import record, training

RESULTS = Path("benchmarks/results/instant.json")
# The command from a checkout that is not installed; `main` asks for the program's name as it is imported.
_NAMED = "import sys; sys.argv[0] = 'instant-avatar'; "
INSTANT = (sys.executable, "-W", "ignore", "-c", _NAMED + "from instantavatar_ns.scripts.main import run; run()")
_WATCHED = (*INSTANT[:-1], _NAMED + "from benchmarks.phases import run; run()")
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"  # some images of containers set it: then every start compiles all Python
CACHES = ("TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "CUDA_CACHE_PATH")


@dataclass
class Start:
    """Start-up: help, and from Enter to an avatar, warm and cold, beside ns-train."""

    subject: Path
    """Folder in InstantAvatar's layout, with novel/."""
    steps: int = 600
    """Training steps, with the options that the trainer advises for so few."""
    method: str = "instant-avatar"
    """Method to train."""
    repeats: int = 3
    """Timed runs of which the fastest counts, where caches are warm."""
    runs: Path = Path("outputs/benchmark-instant")
    """Where the runs go."""
    output: Path = RESULTS
    """JSON whose figures of this part are renewed."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    options: tuple[str, ...] = ()
    """Further flags of the training."""

    def main(self) -> None:
        """Time, evaluate and record."""
        seconds([*training.NS_TRAIN, *self.arguments("unmeasured-ns")])
        seconds([*INSTANT, "train", *self.arguments("unmeasured")])
        warm = [seconds([*INSTANT, "train", *self.arguments(f"warm-{turn}")]) for turn in range(self.repeats)]
        nerfstudio = [seconds([*training.NS_TRAIN, *self.arguments(f"ns-{turn}")]) for turn in range(self.repeats)]
        with TemporaryDirectory() as folder:
            cold = seconds([*INSTANT, "train", *self.arguments("cold")], empty_caches(Path(folder)))
        figures: dict[str, Any] = {
            "enter_warm_s": round(min(warm), 2),
            "enter_cold_s": round(cold, 2),
            "ns_train_warm_s": round(min(nerfstudio), 2),
            "cores": len(os.sched_getaffinity(0)),
            "steps": self.steps,
            "method": self.method,
            "subject": self.subject.name,
        }
        for part, name in (("warm", "warm-0"), ("cold", "cold"), ("ns_train", "ns-0")):
            figures[f"{part}_novel_psnr"] = round(self.psnr(name), 2)
        record.merge(self.output, "start", figures)

    def arguments(self, name: str) -> list[str]:
        """Flags of a run, the same for both commands."""
        from instantavatar_ns.scripts.train import METHODS
        from instantavatar_ns.trainer import few_steps

        options = *few_steps(METHODS[self.method].config, self.steps), *self.options
        flags = training.arguments(self.method, self.subject, self.runs, name, self.steps, *options)
        return ["none" if flag == "tensorboard" else flag for flag in flags]  # what `instant-avatar train` does

    def psnr(self, name: str) -> float:
        """PSNR of a run's avatar on the novel motion."""
        from instantavatar_ns.scripts.evaluate import Evaluate

        run = training.run_folder(self.arguments(name))
        command = Evaluate(run / "config.yml", sets=("novel",), lpips_backbone=self.lpips_backbone)
        return command.main()["novel"]["psnr"]


@dataclass
class Parts(Start):
    """When the parts of one training begin and end, where caches are warm: some of them run at the same time."""

    def main(self) -> None:
        """Time and record."""
        seconds([*INSTANT, "train", *self.arguments("unmeasured")])
        with TemporaryDirectory() as folder:
            path = Path(folder, "phases.json")
            environment = {"ENTER": str(time()), "PHASES": str(path)}
            whole = seconds([*_WATCHED, "train", *self.arguments("parts")], environment)
            parts = json.loads(path.read_text(encoding="utf8"))
        record.merge(self.output, "parts", {"parts_s": {**parts, "whole": [0.0, round(whole, 2)]}})


@dataclass
class Help:
    """Seconds of `instant-avatar train --help`, which are those of its imports, where caches are warm."""

    repeats: int = 5
    """Runs of which the fastest counts."""
    output: Path = RESULTS
    """JSON whose figures of this part are renewed."""

    def main(self) -> None:
        """Time and record."""
        shown = [seconds([*INSTANT, "train", "--help"]) for _ in range(self.repeats + 1)][1:]
        figures = {"help_s": round(min(shown), 2), "help_cores": len(os.sched_getaffinity(0))}
        record.merge(self.output, "help", figures)


@dataclass
class Check:
    """The check before training by itself, on a GPU where there is one: frames are read, kernels are loaded."""

    subject: Path
    """Folder in InstantAvatar's layout."""
    repeats: int = 3
    """Checks of which the fastest counts."""
    output: Path = RESULTS
    """JSON whose figures of this part are renewed."""

    def main(self) -> None:
        """Time and record."""
        import torch

        from instantavatar_ns.check.guard import diagnose_frames
        from instantavatar_ns.data.datamanager import AvatarDataManagerConfig
        from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig

        device = "cuda:0" if torch.cuda.is_available() else "cpu"
        config = AvatarDataManagerConfig(dataparser=InstantAvatarDataParserConfig(data=self.subject))
        datamanager = config.setup(device=device, test_mode="val", world_size=1, local_rank=0)
        frames, taken = datamanager.train_frames, []
        for _ in range(self.repeats + 1):
            training.synchronise()
            start = monotonic()
            diagnosis = diagnose_frames(frames.images.masks(), frames.cameras, datamanager.train_dataset)
            taken.append(monotonic() - start)  # the diagnosis is numbers of the host
        record.progress(diagnosis.verdict)
        record.merge(self.output, "check", {"check_s": round(min(taken[1:]), 3), "check_frames": len(frames)})


def seconds(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Time a process from its start to its end.

    Args:
        command: What to run; it must succeed.
        environment: Variables that are set besides.

    Raises:
        CalledProcessError: It failed.
    """
    record.progress(" ".join(command[-12:])[:100])
    start = monotonic()
    environment = {**os.environ, **(environment or {}), _NO_BYTECODE: ""}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return monotonic() - start


def empty_caches(folder: Path) -> dict[str, str]:
    """Variables that have caches made anew, each in an empty folder.

    Args:
        folder: Existing, empty.
    """
    return {name: str(folder / name) for name in CACHES}


PARTS = {"start": Start, "parts": Parts, "help": Help, "check": Check}
"""Further parts are added here."""

if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(PARTS, description=__doc__).main()
