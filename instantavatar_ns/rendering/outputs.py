"""Outputs of a rendering in nerfstudio's form."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.rendering.composite import Pixels

# Metres behind the pelvis that a ray which hits nothing is said to end.
_BEHIND_PELVIS = 1.0


def pixel_outputs(
    pixels: Pixels, origins: Float[Tensor, "#rays 3"], background: Float[Tensor, "3"] | float | None
) -> dict[str, Tensor]:
    """Colour, opacity and depth of rays.

    Args:
        pixels: What they see.
        origins: Where they start, metres, in the root space of the pose.
        background: Colour behind the person; none leaves colours as they are in front of black.

    Returns:
        `rgb` [rays, 3], `accumulation` [rays, 1], `depth` [rays, 1] (metres along the ray, the far side of the person
        where nothing is hit).
    """
    accumulation = pixels.accumulation[:, None]
    depth = pixels.depth[:, None] / accumulation.clamp_min(1e-6)
    farthest = origins.norm(dim=-1, keepdim=True) + _BEHIND_PELVIS
    return {
        "rgb": pixels.rgb if background is None else pixels.rgb + background * (1 - accumulation),
        "accumulation": accumulation,
        "depth": depth.where(accumulation > 0.5, farthest),
    }
