"""Adam and the learning-rate decay of InstantAvatar (its supplement, section A)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, PolynomialLR

from instantavatar_ns.kernels.usable import triton_usable
from instantavatar_ns.utils.options import Advanced


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam in one launch, with its momenta to choose."""

    lr: float = 1e-2
    """Learning rate."""
    eps: Advanced[float] = 1e-15
    """Added to the root of the second moment; small enough for hash entries that few steps see."""
    betas: Advanced[tuple[float, float]] = (0.9, 0.99)
    """Decay of the first and second moment."""
    fused: Advanced[bool] = True
    """Update all parameters in one launch."""


@dataclass
class PolynomialDecayConfig(SchedulerConfig):
    """(1 - step / max_steps) ** power."""

    _target: type = field(default_factory=lambda: PolynomialDecay)
    """Class to instantiate."""
    max_steps: int = 3000
    """Steps over which the learning rate falls to zero."""
    power: Advanced[float] = 1.5
    """Exponent of the decay."""


class PolynomialDecay(Scheduler):
    """torch's own PolynomialLR.

    Its rates are Python floats, unlike those of nerfstudio's schedulers, whose NumPy scalars torch >= 2.6 refuses to
    load.
    """

    config: PolynomialDecayConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LRScheduler:
        """Return the scheduler."""
        return _ResumablePolynomialLR(optimizer, total_iters=self.config.max_steps, power=self.config.power)


class _ResumablePolynomialLR(PolynomialLR):
    """A `PolynomialLR` that can be prolonged: torch's ends where the checkpoint's ended, whatever was asked for."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the checkpoint's step, to the checkpoint's last step or this one's, whichever is later."""
        last = max(self.total_iters, state_dict["total_iters"])
        super().load_state_dict({**state_dict, "total_iters": last})
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate

    def get_lr(self) -> list[float | Tensor]:
        """Rates at the current step, whatever they were at the one before."""
        return self._get_closed_form_lr()


@dataclass
class RowAdamConfig(OptimizerConfig):
    """Adam for tables of which a step sees some rows only."""

    _target: type = field(default_factory=lambda: RowAdam)
    """Class to instantiate."""
    lr: float = 4e-3
    """Learning rate."""
    eps: Advanced[float] = 0.5
    """Damps coordinates whose gradient RMS is far below eps: they are hardly seen, and would move by their noise."""
    betas: Advanced[tuple[float, float]] = (0.9, 0.99)
    """Decay of the first and second moment, for each step that sees a row."""


class RowAdam(Optimizer):
    """Adam whose moments and step count belong to the rows of a parameter; rows without gradient rest.

    Between two steps that see a row, torch's Adam goes on moving it by its momentum and forgets its second moment, so
    that each such step ends as a jump of the same length whatever the gradient. `SparseAdam` counts steps per
    parameter, takes sparse gradients only, and blocks the host to learn which rows they have.
    """

    def __init__(self, params, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the rows that have gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict) -> None:
        state = self.state[parameter]
        if not state:
            rows = (-1, *[1] * (parameter.dim() - 1))
            state["steps"] = parameter.new_zeros(len(parameter)).view(rows)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        update = self._update_triton if parameter.is_cuda and triton_usable() else self._update_torch
        update(parameter, gradient, group)

    def _update_torch(self, parameter: Tensor, gradient: Tensor, group: dict) -> None:
        state = self.state[parameter]
        seen = gradient.flatten(1).ne(0).any(dim=1).view(state["steps"].shape)
        first, second = group["betas"]
        state["steps"] += seen
        state["exp_avg"].lerp_(gradient, (1 - first) * seen.to(gradient.dtype).expand_as(gradient))
        state["exp_avg_sq"].lerp_(gradient.square(), (1 - second) * seen.to(gradient.dtype).expand_as(gradient))
        steps = state["steps"].clamp_min(1)
        mean = state["exp_avg"] / (1 - first**steps)
        spread = (state["exp_avg_sq"] / (1 - second**steps)).sqrt() + group["eps"]
        parameter.sub_(group["lr"] * seen * mean / spread)

    def _update_triton(self, parameter: Tensor, gradient: Tensor, group: dict) -> None:
        """The same in one launch."""
        from instantavatar_ns.kernels.launch import launch, next_power_of_2
        from instantavatar_ns.kernels.row_adam import row_adam_kernel

        state, columns, rate = self.state[parameter], parameter[0].numel(), group["lr"]
        if not isinstance(rate, Tensor):
            rate = parameter.new_full((1,), rate)
        launch(
            row_adam_kernel,
            (len(parameter),),
            parameter,
            gradient.contiguous(),
            state["steps"],
            state["exp_avg"],
            state["exp_avg_sq"],
            rate,
            *group["betas"],
            group["eps"],
            columns,
            WIDTH=next_power_of_2(columns),
            num_warps=1,
        )
