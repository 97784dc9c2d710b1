"""Loss terms of InstantAvatar (section 3.4), each a mean over rays, samples or points."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Num
from torch import Tensor

_HARD_SURFACE_MINIMUM = math.log(1 + math.exp(-1))  # of the prior, reached at 0 and 1


def rgb_loss(rgb: Float[Tensor, "rays 3"], truth: Float[Tensor, "rays 3"]) -> Float[Tensor, ""]:
    """Squared difference between colours, on the same background."""
    return F.mse_loss(rgb, truth)


def mask_loss(accumulation: Float[Tensor, "rays 1"], mask: Float[Tensor, "rays 1"]) -> Float[Tensor, ""]:
    """Squared difference between the opacity of rays and the mask."""
    return F.mse_loss(accumulation, mask)


def hard_surface_loss(opacity: Float[Tensor, "*n"], count: Num[Tensor, "1"] | None = None) -> Float[Tensor, ""]:
    """Prior that opacities are 0 or 1 (eq. 12): -log(e^-a + e^(a-1)), less its minimum; zero of nothing.

    Args:
        opacity: Of rays or samples.
        count: How many there are, if the others are zeros that fill a buffer; at most as many as it holds.
    """
    opacity = opacity.clamp(0, 1)
    prior = _HARD_SURFACE_MINIMUM - torch.log(torch.exp(-opacity) + torch.exp(opacity - 1))
    if count is None:
        return prior.sum() / max(prior.numel(), 1)
    return prior.sum() / count.clamp(1, max(prior.numel(), 1))[0]


def opacity_loss(opacity: Float[Tensor, "points"], where: Bool[Tensor, "points"] | None = None) -> Float[Tensor, ""]:
    """Opacity at points in space that should be empty, averaged over all points.

    Args:
        opacity: Of random canonical points.
        where: Those that should be empty, such as those outside the occupied cells; by default all.
    """
    return (opacity if where is None else opacity * where).mean()
