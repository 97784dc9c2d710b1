"""Train a small avatar by one process and by two, and leave what each of them has at the end.

python -m tests.two_processes SUBJECT FOLDER STEPS DEVICE
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks import processes
from tests.commands import training_arguments

if TYPE_CHECKING:
    from instantavatar_ns.trainer import AvatarTrainer


def train(folder: Path, trainer: AvatarTrainer) -> None:
    """Train, and write the losses, the model and, of the first process, the PSNR of a held-out frame."""
    losses, steps = [], trainer.train_iteration

    def noted(step: int):
        loss, *more = steps(step)
        losses.append(float(loss))
        return loss, *more

    trainer.train_iteration = noted
    trainer.train()
    model = trainer.pipeline.model
    figures: dict = {
        "losses": losses,
        "is_captured": trainer.pipeline.trains_itself and trainer.pipeline._own_step.is_captured,
    }
    if trainer.local_rank == 0:
        model.eval()
        camera, batch = next(iter(trainer.pipeline.datamanager.fixed_indices_eval_dataloader))
        metrics, _ = model.get_image_metrics_and_images(model.get_outputs_for_camera(camera), batch)
        figures["psnr"] = metrics["psnr"]
    (folder / f"{trainer.local_rank}.json").write_text(json.dumps(figures))
    torch.save(model.state_dict(), folder / f"{trainer.local_rank}.pt")


def main(subject: str, folder: str, steps: str, device: str) -> None:
    """Train by one process and by two, on one device."""
    for number in (1, 2):
        output = Path(folder, str(number))
        output.mkdir()
        options = ["--machine.num-devices", str(number), "--pipeline.model.pose-start", "10"]
        arguments = training_arguments(Path(subject), output, int(steps), *options)
        processes.start(arguments, number, partial(train, output), device)


if __name__ == "__main__":
    main(*sys.argv[1:])
