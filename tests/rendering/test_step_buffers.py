"""Sizes of a training's buffers over many steps, whose numbers of samples and roots are made up."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from instantavatar_ns.rendering.capacity import BufferSizes, shrunk
from instantavatar_ns.rendering.step_buffers import _PATIENCE, StepBuffers

RAYS = 4096
START = BufferSizes(256 * RAYS, 256 * RAYS)
LITTLE = 1000, 700


class Steps:
    """Numbers of samples and roots of made-up steps, known at the next check as on a GPU."""

    def __init__(self) -> None:
        self.buffers, self._sent, self._most = StepBuffers(), None, (0, 0)
        self.buffers._sizes[RAYS], self.buffers._wanted[RAYS] = START, self  # pyright: ignore[reportArgumentType]
        self.sizes = [START]

    def take(self) -> tuple[int, int] | None:
        said, self._sent, self._most = self._sent, self._most, (0, 0)
        return said

    def check_after(self, *wanted: tuple[int, int]) -> bool:
        self._most = max(samples for samples, _ in wanted), max(roots for _, roots in wanted)
        grew = self.buffers.check()
        self.sizes.append(self.buffers._sizes[RAYS])
        return grew

    @property
    def changes(self) -> int:
        return sum(old != new for old, new in pairwise(self.sizes))


def test_buffers_shrink_at_times_by_the_most_of_all_steps_since() -> None:
    steps = Steps()
    for wanted in (LITTLE, (100_000, 700), *[LITTLE] * (_PATIENCE - 2)):
        assert not steps.check_after(wanted)
        assert steps.sizes[-1] == START
    steps.check_after(LITTLE)
    assert 100_000 <= steps.sizes[-1].samples < 140_000 and 700 <= steps.sizes[-1].roots < 5000


def test_samples_and_roots_shrink_together_and_only_if_it_pays() -> None:
    def fit(samples: int, roots: int) -> BufferSizes:
        return shrunk((START,), (BufferSizes.fitting(samples, roots),))[0]

    assert fit(500_000, 600_000) == START
    both = fit(300_000, 700_000)
    assert both.samples < 400_000 and both.roots < START.roots
    assert fit(1000, START.roots).roots == START.roots, "never more than they were"


def test_buffers_that_have_just_grown_do_not_shrink_by_earlier_steps(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    for _ in range(_PATIENCE + 1):
        steps.check_after(LITTLE)
    for _ in range(_PATIENCE - 1):
        steps.check_after(LITTLE)
    steps.check_after((200_000, 700))
    assert steps.check_after(LITTLE)
    assert "more than its buffers hold" in capsys.readouterr().out
    grown = steps.sizes[-1]
    for _ in range(_PATIENCE - 1):
        steps.check_after(LITTLE)
        assert steps.sizes[-1] == grown
    steps.check_after(LITTLE)
    assert steps.sizes[-1].samples < 5000


def test_a_training_has_few_sizes() -> None:
    """All space is occupied for 60 steps, then the fog clears; steps differ by a tenth."""
    draw, steps = random.Random(0), Steps()
    for check in range(75):
        wanted = []
        for step in range(20 * check, 20 * check + 20):
            samples = 600_000 if step < 60 else 40_000 + 560_000 * math.exp(-(step - 60) / 150)
            wanted.append((round(samples * draw.gauss(1, 0.1)), round(0.7 * samples * draw.gauss(1, 0.1))))
        steps.check_after(*wanted)
    assert steps.changes <= 5
    assert steps.sizes[-1].samples < 120_000
