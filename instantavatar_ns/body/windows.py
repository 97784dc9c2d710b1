"""Overlapping windows over the frames of a recording, so that work and memory grow with its length and no faster.

Corrections are cubic splines over time: what happens in a frame tells next to nothing of one that is a hundred frames
away. Within a window everything depends on everything; results are blended where windows overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# In pieces of the splines, which lie between neighbouring knots: eight frames as a rule. Recordings of up to 132 frames
# are one window.
_LONGEST, _OVERLAP = 16, 4


class Window(NamedTuple):
    """Frames that are worked on together, and the knots that have weight in them."""

    frames: slice
    knots: slice


def windows(basis: Float[Tensor, "frames knots"]) -> list[Window]:
    """Cover all frames by windows, evenly spread over time, each with a quarter or more in common with the next.

    Args:
        basis: Weight of each knot in each frame: uniform cubic B-splines, the frames in ascending order.

    Returns:
        Windows that have frames, in ascending order; one, if the recording is short.
    """
    pieces = basis.shape[1] - 3
    count = max(ceil((pieces - _OVERLAP) / (_LONGEST - _OVERLAP)), 1)
    length = min(pieces, _LONGEST)
    piece = (basis > 0).int().argmax(dim=1).clamp_max(pieces - 1).cpu()
    result = []
    for number in range(count):
        start = round(number * (pieces - length) / max(count - 1, 1))
        first, end = torch.searchsorted(piece, torch.tensor([start, start + length])).tolist()
        if first < end:
            result.append(Window(slice(first, end), slice(start, start + length + 3)))
    return result


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
