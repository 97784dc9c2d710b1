"""Adam and the learning-rate decay of InstantAvatar (its supplement, section A)."""

from __future__ import annotations

from dataclasses import dataclass, field

from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, PolynomialLR


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam in one launch, with its momenta to choose."""

    lr: float = 1e-2
    """Learning rate."""
    eps: float = 1e-15
    """Small enough for hash entries that are seldom looked at."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the first and second moment."""
    fused: bool = True
    """Update all parameters in one launch."""


@dataclass
class PolynomialDecayConfig(SchedulerConfig):
    """(1 - step / max_steps) ** power."""

    _target: type = field(default_factory=lambda: PolynomialDecay)
    """Class to instantiate."""
    max_steps: int = 3000
    """Steps after which the rate is zero."""
    power: float = 1.5
    """Exponent of the decay."""


class PolynomialDecay(Scheduler):
    """torch's own PolynomialLR.

    Its rates are Python floats, unlike those of nerfstudio's schedulers, whose NumPy scalars torch >= 2.6 refuses to
    load.
    """

    config: PolynomialDecayConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LRScheduler:
        """Return the scheduler."""
        return PolynomialLR(optimizer, total_iters=self.config.max_steps, power=self.config.power)
