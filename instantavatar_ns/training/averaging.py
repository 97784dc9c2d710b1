"""Exponential moving average of weights over the last part of a training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_LAST_PART = 1 / 3  # of the steps


class WeightAverage:
    """Moving average of parameters, which takes their place after the last step; checkpoints before have them as is.

    Args:
        parameters: To average.
        decay: Part of the average that a step keeps.
        first: First step of the training.
        last: Its last step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float, first: int, last: int) -> None:
        self._parameters, self._decay, self._last = [*parameters], decay, last
        self._begin = last - int(_LAST_PART * (last - first))
        self._average: list[Tensor] | None = None

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Take a step's parameters into the average.

        Args:
            step: Its number.
        """
        if step < self._begin:
            return
        if self._average is None:
            self._average = [parameter.detach().clone() for parameter in self._parameters]
        torch._foreach_lerp_(self._average, self._parameters, 1 - self._decay)
        if step == self._last:
            torch._foreach_copy_(self._parameters, self._average)
