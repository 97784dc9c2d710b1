"""Coverage as the colours of a field, to be rendered or baked into a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.unseen.prior import UnseenPrior

# Colours of what no training view shows, of what all views show from one side, and of what they show from many.
_UNSEEN, _ONE_SIDED, _ALL_SIDES = (0.85, 0.15, 0.25), (0.95, 0.75, 0.2), (0.2, 0.65, 0.35)
_LUMA = (0.299, 0.587, 0.114)
_OWN_SHADE = 0.5  # part of the brightness that follows the person's own, so that one knows where one is


class SeenField:
    """A field of the same density, white where the training views saw the surface and black where they did not.

    Rendered, it tells the pixels that show what was seen.

    Args:
        prior: Knows what was seen.
        field: The canonical field; calls take its arguments.
    """

    has_kernels = False

    def __init__(self, prior: UnseenPrior, field: Callable[..., tuple[Tensor, Tensor]]) -> None:
        self._prior, self._field = prior, field

    def __call__(self, points: Float[Tensor, "n 3"], *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Density, 1/metres, and colour, 0 to 1, of canonical points."""
        density, color = self._field(points, *args, **kwargs)
        return density, self._recolored(points, color)

    def _recolored(self, points: Float[Tensor, "n 3"], color: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        seen, _ = self._prior.coverage_at(points)
        return seen.to(color)[:, None].expand_as(color).contiguous()


class CoverageField(SeenField):
    """A field of the same density, coloured for people: red where no training view saw the surface, yellow where all
    saw it from one side, so that its depth is less sure, and green where they saw it from many.

    The person's own brightness shines through.
    """

    def _recolored(self, points: Float[Tensor, "n 3"], color: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        seen, one_sided = self._prior.coverage_at(points)
        unseen, one, many = (torch.tensor(tint, device=color.device) for tint in (_UNSEEN, _ONE_SIDED, _ALL_SIDES))
        tint = torch.where(seen[:, None], torch.lerp(many, one, one_sided[:, None].to(many)), unseen)
        luma = color.float() @ torch.tensor(_LUMA, device=color.device)
        return (tint * (1 - _OWN_SHADE + _OWN_SHADE * luma[:, None])).to(color)
