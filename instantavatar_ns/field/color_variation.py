"""Total variation of a field's colour near the body's surface, in canonical space."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

_REACH = 0.015  # metres around the body, standard deviation along each axis
_APART = 0.0015  # metres between the two points of a pair, likewise: about a cell of the finest levels
_THICKNESS = 0.01  # metres over which density counts as opaque


def color_variation(
    field: Callable[[Float[Tensor, "n 3"]], tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]],
    vertices: Float[Tensor, "vertices 3"],
    pairs: int,
) -> Float[Tensor, ""]:
    """Mean absolute difference of colours, summed over channels, between points close together.

    Empty space does not count. No gradient reaches the density by its opacity, which would otherwise fall at edges of
    a pattern. All draws happen on the device, so that a CUDA graph can hold it.

    Args:
        field: Density, 1/metres, and colour.
        vertices: Of the canonical body, metres.
        pairs: Pairs of points to draw.
    """
    device = vertices.device
    centers = vertices[torch.randint(len(vertices), (pairs,), device=device)]
    points = centers + _REACH * torch.randn(pairs, 3, device=device)
    density, color = field(torch.cat([points, points + _APART * torch.randn(pairs, 3, device=device)]))
    opaque = 1 - torch.exp(-_THICKNESS * density.detach())
    (first, second), (here, there) = opaque.chunk(2), color.chunk(2)
    return (torch.minimum(first, second) * (here - there).abs().sum(dim=-1)).mean()
