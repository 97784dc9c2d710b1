"""Which pixels of a frame a training step looks at: patches on the person, or pixels by where they lie."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_EDGE_WIDTH = 1 / 64  # of the image's larger side, to either side of the silhouette


class PixelClasses(NamedTuple):
    """Flat indices of a frame's pixels by where they lie.

    Attributes:
        person: On the person, or near it if so asked.
        interior: On the person and not near the silhouette. Were the whole person drawn from beside the edge, the near
            side of the silhouette would be drawn more often than the far one, and the avatar would grow by the width of
            its blur.
        edge: In a band to both sides of the silhouette; empty where the person fills the image.
        anywhere: All.
    """

    person: Int[Tensor, "pixels"]
    interior: Int[Tensor, "pixels"]
    edge: Int[Tensor, "pixels"]
    anywhere: Int[Tensor, "pixels"]


def pixel_classes(masks: Float[Tensor, "frames height width"], dilation: float = 0.0) -> list[PixelClasses]:
    """Sort the pixels of each frame, once, so that a training step draws from them without looking at the mask.

    Args:
        masks: 1 on the person, 0 elsewhere.
        dilation: How far around the person pixels count as on it, for `person` alone; of the image's larger side.
    """
    _, height, width = masks.shape
    reach, dilation = max(1, round(_EDGE_WIDTH * max(height, width))), round(dilation * max(height, width))
    everywhere = torch.arange(height * width, device=masks.device)
    classes = []
    for mask in masks:
        inside = (mask > 0.5).float()[None, None]
        grown = F.max_pool2d(inside, 2 * reach + 1, stride=1, padding=reach)
        shrunken = -F.max_pool2d(-inside, 2 * reach + 1, stride=1, padding=reach)
        dilated = F.max_pool2d(inside, 2 * dilation + 1, stride=1, padding=dilation)
        interior = shrunken if shrunken.any() else inside  # a person thinner than the band is all edge
        parts = (dilated > 0, interior > 0, grown != shrunken)
        person, interior, edge = (pixels.flatten().nonzero()[:, 0] for pixels in parts)
        classes.append(PixelClasses(person, interior, edge, everywhere))
    return classes


def draw(pixels: Int[Tensor, "pixels"], count: int, generator: torch.Generator) -> Int[Tensor, "count"]:
    """Draw pixels of a class, with repetition; an empty class is an error of the caller."""
    return pixels[torch.randint(len(pixels), (count,), device=pixels.device, generator=generator)]


def patches(centres: Int[Tensor, "patches"], size: int, height: int, width: int) -> Int[Tensor, "patches*size*size"]:
    """Flat indices of square patches around centre pixels, moved into the image where they would leave it."""
    half = size // 2
    rows = (centres // width - half).clamp(0, max(height - size, 0))
    columns = (centres % width - half).clamp(0, max(width - size, 0))
    step = torch.arange(size, device=centres.device)
    # An image smaller than a patch gives its last row and column again.
    rows = (rows[:, None] + step).clamp(max=height - 1)
    columns = (columns[:, None] + step).clamp(max=width - 1)
    return (rows[:, :, None] * width + columns[:, None, :]).flatten()


def proportions(total: int, shares: tuple[float, float, float]) -> list[int]:
    """Split a number of rays by shares of inside, edge and anywhere; the last takes what rounding leaves."""
    counts = [int(total * share / sum(shares)) for share in shares[:2]]
    return [*counts, total - sum(counts)]
