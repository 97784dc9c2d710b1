"""Overlapping windows over the frames of a recording, so that work and memory grow with its length and no faster.

Corrections are cubic splines over time: what happens in a frame tells next to nothing of one that is a hundred frames
away. Within a window everything depends on everything; results are blended where windows overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# In pieces of the splines, which lie between neighbouring knots: eight frames as a rule. Recordings of up to 132 frames
# are one window.
_LONGEST, _OVERLAP = 16, 4


class Span(NamedTuple):
    """Frames that follow each other, and the knots that have weight in them."""

    frames: slice
    knots: slice

    def within(self, other: Span) -> bool:
        """Return whether all knots are the other's too."""
        return other.knots.start <= self.knots.start and self.knots.stop <= other.knots.stop


def windows(basis: Float[Tensor, "frames knots"]) -> tuple[list[Span], list[Span]]:
    """Cover all frames by windows that are spread evenly over time, and divide them where windows begin and end.

    Args:
        basis: Weight of each knot in each frame: uniform cubic B-splines, the frames in ascending order.

    Returns:
        The windows, one if the recording is short; and cells that do not overlap and of which each window is a union.
        Both in ascending order, without those that have no frames.
    """
    pieces = basis.shape[1] - 3
    count = max(ceil((pieces - _OVERLAP) / (_LONGEST - _OVERLAP)), 1)
    length = ceil((pieces + (count - 1) * _OVERLAP) / count)
    starts = spread_evenly(pieces - length + 1, count)
    piece = (basis > 0).int().argmax(dim=1).clamp_max(pieces - 1).cpu()

    def spans(bounds: list[tuple[int, int]]) -> list[Span]:
        frames = torch.searchsorted(piece, torch.tensor(bounds)).tolist()
        several = zip(frames, bounds, strict=True)
        return [Span(slice(*some), slice(start, end + 3)) for some, (start, end) in several if some[0] < some[1]]

    bounds = [(start, start + length) for start in starts]
    return spans(bounds), spans([*pairwise(sorted({bound for pair in bounds for bound in pair}))])


def spread_evenly(total: int, most: int) -> list[int]:
    """Choose numbers from 0 on, evenly: all of them, or the first, the last and some between.

    Args:
        total: How many numbers there are.
        most: How many to choose at most.
    """
    count = min(total, most)
    return [round(number * (total - 1) / max(count - 1, 1)) for number in range(count)]


def blend(parts: Sequence[Float[Tensor, "_ *shape"]], places: Sequence[slice], total: int) -> Tensor:
    """Join overlapping parts of a sequence, each with a weight that falls towards its ends.

    Args:
        parts: Values of each part.
        places: Where they belong in the sequence.
        total: Length of the sequence.

    Returns:
        The whole sequence [total, *shape]; zero where there is no part.
    """
    result, weights = parts[0].new_zeros(total, *parts[0].shape[1:]), parts[0].new_zeros(total)
    for part, place in zip(parts, places, strict=True):
        ramp = torch.arange(1, len(part) + 1).to(part)
        tent = torch.minimum(ramp, ramp.flip(0))
        result[place] += torch.einsum("n,n...->n...", tent, part)
        weights[place] += tent
    return torch.einsum("n,n...->n...", 1 / weights.clamp_min(1), result)
