"""Train by one process and by two, each with a GPU, through ns-train, and compare the avatars.

    python -m benchmarks.two_gpus --subject path/to/dev-male --output benchmarks/results/two_gpus.json

Both take the same number of steps; with two processes a step sees twice as many rays, of two frames. `train_seconds` is
from the start of ns-train to its end, imports included. `--device-type cpu` has processes without GPUs, which ns-train
does not start: a trial of this file.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import tyro

from benchmarks import processes, record, training


@dataclass
class TwoGpus:
    """Benchmark of several processes."""

    subject: Path
    """Folder in InstantAvatar's layout."""
    output: Path = Path("benchmarks/results/two_gpus.json")
    """JSON to write."""
    runs: Path = Path("outputs/benchmark-two-gpus")
    """Where the runs go."""
    method: Literal["instant-avatar", "instant-avatar-lite"] = "instant-avatar"
    """Method to train."""
    processes: tuple[int, ...] = (1, 2)
    """Numbers of processes to train with."""
    steps: int = 3000
    """Training steps."""
    device_type: Literal["cuda", "cpu"] = "cuda"
    """Where to train."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    options: str = ""
    """Further options of ns-train."""

    def main(self) -> None:
        """Train and evaluate, and write the figures."""
        runs = {number: self.train(number) for number in self.processes}
        figures: dict[str, Any] = {
            **record.head(self.device_type),
            "method": self.method,
            "subject": self.subject.name,
            "steps": self.steps,
            "processes": {str(number): run | self.evaluate(Path(run.pop("run"))) for number, run in runs.items()},
        }
        record.write(self.output, figures)

    def train(self, number: int) -> dict[str, Any]:
        """Train with so many processes; returns the run's folder and seconds."""
        record.progress(f"training by {number}")
        options = ["--machine.num-devices", str(number), "--machine.device-type", self.device_type]
        options += shlex.split(self.options)
        name = f"{self.subject.name}-{number}"
        arguments = training.arguments(self.method, self.subject, self.runs, name, self.steps, *options)
        start = monotonic()
        if self.device_type == "cuda":
            run = training.train(arguments)
        else:
            run = processes.start(arguments, number, lambda trainer: trainer.train())
        return {"run": run, "train_seconds": round(monotonic() - start, 1)}

    def evaluate(self, run: Path) -> dict[str, float]:
        """PSNR, SSIM and, with AlexNet's weights, LPIPS of each set of frames."""
        from instantavatar_ns.scripts.evaluate import Evaluate

        results = Evaluate(run / "config.yml", output_dir=run / "eval", lpips_backbone=self.lpips_backbone).main()
        names = ("psnr", "ssim", "lpips")
        return {f"{part}_{name}": values[name] for part, values in results.items() for name in names if name in values}


if __name__ == "__main__":
    tyro.cli(TwoGpus, description=__doc__).main()
