"""Finer levels of a hash encoding learn later."""

from __future__ import annotations

from torch import Tensor

from instantavatar_ns.field.hash_encoding import FEATURES, HashEncoding

_AT_ONCE = 0.5  # part of the levels, the coarse ones, that learn from the first step


class LevelSchedule:
    """Holds the finer levels back until their turn, one after the other: their entries stay as small as they began.

    Gradients are cut where a step's are handed to the parameters, outside a CUDA graph of the step.

    Args:
        encoding: Its levels lie one after the other in its parameters, the finest last.
        steps: From which on all levels learn.
    """

    def __init__(self, encoding: HashEncoding, steps: int) -> None:
        self._entries, self._steps, self._open = encoding.grid.entries, steps, 0
        self.update(0)
        encoding.params.register_post_accumulate_grad_hook(self._cut)

    @property
    def open_levels(self) -> int:
        """Levels that learn."""
        return self._open

    def update(self, step: int) -> None:
        """Open the levels whose turn has come.

        Args:
            step: Of the training.
        """
        levels = len(self._entries)
        self._open = int(levels * min(1.0, _AT_ONCE + (1 - _AT_ONCE) * step / self._steps))

    def _cut(self, parameter: Tensor) -> None:
        if self._open < len(self._entries) and parameter.grad is not None:
            parameter.grad[FEATURES * sum(self._entries[: self._open]) :].zero_()
