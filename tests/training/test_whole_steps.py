"""Steps of the trainer: by one graph with the update where nothing has to happen in between, else nerfstudio's."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import Trainer
from torch.cuda.amp.grad_scaler import GradScaler

from instantavatar_ns.optimizers import FusedAdamConfig, PolynomialDecayConfig
from instantavatar_ns.trainer import AvatarTrainer


def trainer_with(accumulated: int = 1, log_gradients: bool = False, max_norm: float | None = None) -> Any:
    """A trainer of one parameter whose captured step updates it."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = FusedAdamConfig(max_norm=max_norm)
    config = {"optimizer": optimizer, "scheduler": PolynomialDecayConfig(max_steps=10)}

    def train_step(step, update):
        parameter.grad = torch.ones_like(parameter)
        update.take_rates()
        update()
        return torch.tensor(2.0), {"rgb_loss": torch.tensor(2.0)}, {"psnr": torch.tensor(9.0)}

    trainer: Any = object.__new__(AvatarTrainer)
    trainer.__dict__ |= {
        "parameter": parameter,
        "optimizers": Optimizers({"field": config}, {"field": [parameter]}),
        "gradient_accumulation_steps": defaultdict(lambda: accumulated),
        "pipeline": SimpleNamespace(trains_itself=True, train_step=train_step),
        "config": SimpleNamespace(log_gradients=log_gradients),
        "grad_scaler": GradScaler(enabled=False),
        "device": "cpu",
    }
    return trainer


def test_captured_steps_are_whole_and_follow_the_schedule() -> None:
    trainer, rates = trainer_with(), []
    for step in range(3):
        before = trainer.parameter.detach().clone()
        loss, losses, metrics = trainer.train_iteration(step)
        assert (loss, losses["rgb_loss"], metrics["psnr"]) == (2, 2, 9)
        rates.append((before - trainer.parameter.detach()).mean().item())
    assert rates == pytest.approx([1e-2 * (1 - step / 10) ** 1.5 for step in range(3)], rel=1e-4)


@pytest.mark.parametrize("reason", [{"accumulated": 2}, {"log_gradients": True}, {"max_norm": 1.0}])
def test_steps_are_nerfstudios_where_something_happens_before_the_update(
    reason: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "train_iteration", lambda self, step: "nerfstudio's")
    assert trainer_with(**reason).train_iteration(0) == "nerfstudio's"
    trainer = trainer_with()
    trainer.pipeline.trains_itself = False
    assert trainer.train_iteration(0) == "nerfstudio's"
