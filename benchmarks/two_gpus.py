"""Train by one process, and by two for half as many steps, each with a GPU, through ns-train; compare the avatars.

    python -m benchmarks.two_gpus --subject path/to/dev-male --output benchmarks/results/instant.json

A step of two processes sees twice as many rays, of two frames, so both see as many, and is twice as large: fewer steps
that know more may be larger. Keys are merged into the file:

ddp_psnr, ddp_one_psnr               PSNR of the novel motion by two processes and by one, decibels; likewise LPIPS,
                                     with AlexNet's weights, and `ddp_heldout_psnr`, of held-out frames in given poses
ddp_step_ms, ddp_one_step_ms         a step, in the last two thirds of the training, by the times at which it was logged
ddp_train_s, ddp_one_train_s         from the start of ns-train to its end, imports included
ddp_steps, ddp_one_steps             steps

`--device-type cpu` has processes without GPUs, which ns-train does not start: a trial of this file.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import tyro

from benchmarks import processes, record, training
from instantavatar_ns.config import instant_avatar, instant_avatar_lite

METHODS = {spec.config.method_name: spec.config for spec in (instant_avatar, instant_avatar_lite)}


@dataclass
class TwoGpus:
    """Benchmark of several processes."""

    subject: Path
    """Folder in InstantAvatar's layout, with novel/."""
    output: Path = Path("benchmarks/results/instant.json")
    """JSON whose figures of this part are renewed."""
    runs: Path = Path("outputs/benchmark-two-gpus")
    """Where the runs go."""
    method: Literal["instant-avatar", "instant-avatar-lite"] = "instant-avatar"
    """Method to train."""
    steps: int = 3000
    """Training steps of one process."""
    device_type: Literal["cuda", "cpu"] = "cuda"
    """Where to train."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    options: str = ""
    """Further options of ns-train."""

    def main(self) -> None:
        """Train and evaluate, and write the figures."""
        figures: dict[str, Any] = {}
        for key, number, steps in (("ddp_one", 1, self.steps), ("ddp", 2, self.steps // 2)):
            run, seconds = self.train(number, steps)
            figures |= {f"{key}_steps": steps, f"{key}_train_s": seconds}
            figures[f"{key}_step_ms"] = round(step_milliseconds(run, steps // 3), 3)
            figures |= {f"{key}_{name}": round(value, 4) for name, value in self.evaluate(run).items()}
        record.merge(self.output, "two GPUs", figures, self.device_type)

    def train(self, number: int, steps: int) -> tuple[Path, float]:
        """Train with so many processes; returns the run's folder and seconds."""
        record.progress(f"training by {number}")
        options = ["--machine.num-devices", str(number), "--machine.device-type", self.device_type]
        options += training.scaled_schedules(METHODS[self.method], steps)
        rate = METHODS[self.method].optimizers["field"]["optimizer"].lr
        options += ["--optimizers.field.optimizer.lr", str(number * rate)]
        options += shlex.split(self.options)
        name = f"{self.subject.name}-{number}"
        arguments = training.arguments(self.method, self.subject, self.runs, name, steps, *options)
        start = monotonic()
        if self.device_type == "cuda":
            run = training.train(arguments)
        else:
            run = processes.start(arguments, number, lambda trainer: trainer.train())
        return run, round(monotonic() - start, 1)

    def evaluate(self, run: Path) -> dict[str, float]:
        """PSNR and, with AlexNet's weights, LPIPS of the novel motion, and PSNR of held-out frames."""
        from instantavatar_ns.scripts.evaluate import Evaluate

        results = Evaluate(run / "config.yml", output_dir=run / "eval", lpips_backbone=self.lpips_backbone).main()
        novel = {name: results["novel"][name] for name in ("psnr", "lpips") if name in results["novel"]}
        return novel | {"heldout_psnr": results["heldout"]["psnr"]}


def step_milliseconds(run: Path, first: int) -> float:
    """Mean time of a step from the first log at or behind a step to the last, by TensorBoard's file of the run.

    Over many steps the host, which logs, is as fast as the GPU that it waits for.

    Args:
        run: Folder of the run.
        first: Step.

    Raises:
        ValueError: There are fewer than two logs.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run)).Reload()
    logged = [event for event in events.Scalars("Train Loss") if event.step >= first]
    if len(logged) < 2:
        raise ValueError(f"{run}: expected two logs or more from step {first} on, found {len(logged)}")
    return 1000 * (logged[-1].wall_time - logged[0].wall_time) / (logged[-1].step - logged[0].step)


if __name__ == "__main__":
    tyro.cli(TwoGpus, description=__doc__).main()
