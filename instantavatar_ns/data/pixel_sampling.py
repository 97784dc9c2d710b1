"""Choice of the pixels of a training step: patches on the person, or single pixels by where they lie."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

_EDGE_WIDTH = 1 / 64  # of the image's larger side, to either side of the silhouette


class PixelLists(NamedTuple):
    """Flat indices of some pixels of each frame, one frame after the other: drawn from without knowing the frame.

    Attributes:
        pixels: Of all frames.
        first: Place of each frame's first; the last number is how many there are.
    """

    pixels: Int[Tensor, "pixels"]
    first: Int[Tensor, "frames+1"]

    @classmethod
    def marked(cls, pixels: Bool[Tensor, "frames height*width"]) -> PixelLists:
        """The pixels that are marked. Waits for the device to learn how many they are."""
        first = torch.cat([pixels.new_zeros(1, dtype=torch.long), pixels.sum(dim=1).cumsum(dim=0)])
        return cls(pixels.nonzero()[:, 1], first)

    def of(self, frame: int) -> Int[Tensor, "pixels"]:
        """Those of one frame."""
        return self.pixels[int(self.first[frame]) : int(self.first[frame + 1])]

    def draw(self, frame: Int[Tensor, "1"], count: int, generator: torch.Generator) -> Int[Tensor, "count"]:
        """Draw pixels of a frame, with repetition.

        Args:
            frame: Index of the frame, which must have some of these pixels.
            count: Number of pixels.
            generator: Random numbers, on the device of the pixels.
        """
        first, end = self.first[frame], self.first[frame + 1]
        share = torch.rand(count, device=self.pixels.device, dtype=torch.float64, generator=generator)
        return self.pixels[first + (share * (end - first)).long()]


class PixelClasses(NamedTuple):
    """Pixels by where they lie.

    Attributes:
        person: On the person, or near it if so asked.
        interior: On the person and not near the silhouette. Were the whole person drawn from beside the edge, the near
            side of the silhouette would be drawn more often than the far one, and the avatar would grow by the width of
            its blur.
        edge: In a band to both sides of the silhouette; where the person fills the image, those of `interior`.
    """

    person: PixelLists
    interior: PixelLists
    edge: PixelLists


def pixel_classes(masks: Float[Tensor, "frames height width"], dilation: float = 0.0) -> PixelClasses:
    """Sort the pixels of each frame, once, so that a training step draws from them without looking at the mask.

    Args:
        masks: 1 on the person, 0 elsewhere.
        dilation: How far around the person pixels count as on it, for `person` alone; of the image's larger side.
    """
    height, width = masks.shape[1:]
    reach, dilation = max(1, round(_EDGE_WIDTH * max(height, width))), round(dilation * max(height, width))
    person, interior, edge = (torch.empty_like(masks, dtype=torch.bool) for _ in range(3))
    for frame, mask in enumerate(masks):
        inside = (mask > 0.5).float()[None, None]
        grown, shrunken = _grow(inside, reach), -_grow(-inside, reach)
        dilated = _grow(inside, dilation)
        interior_mask = shrunken if shrunken.any() else inside  # a person thinner than the band is all edge
        person[frame], interior[frame], edge[frame] = (
            pixels[0, 0] for pixels in (dilated > 0, interior_mask > 0, grown != shrunken)
        )
    edge = torch.where(edge.any(dim=(1, 2), keepdim=True), edge, interior)
    return PixelClasses(*(PixelLists.marked(pixels.flatten(1)) for pixels in (person, interior, edge)))


def _grow(mask: Float[Tensor, "1 1 height width"], reach: int) -> Float[Tensor, "1 1 height width"]:
    """Largest value of the square around each pixel, along one axis after the other."""
    mask = F.max_pool2d(mask, (2 * reach + 1, 1), stride=1, padding=(reach, 0))
    return F.max_pool2d(mask, (1, 2 * reach + 1), stride=1, padding=(0, reach))


def patches(centers: Int[Tensor, "patches"], size: int, height: int, width: int) -> Int[Tensor, "patches*size*size"]:
    """Return flat indices of the pixels of square patches, which are moved into the image where they would leave it.

    Args:
        centers: Flat indices of the pixels that the patches lie around.
        size: Edge of a patch, pixels.
        height: Of the image, pixels.
        width: Of the image, pixels.
    """
    half = size // 2
    rows = (centers // width - half).clamp(0, max(height - size, 0))
    columns = (centers % width - half).clamp(0, max(width - size, 0))
    step = torch.arange(size, device=centers.device)
    # An image smaller than a patch gives its last row and column again.
    rows = (rows[:, None] + step).clamp(max=height - 1)
    columns = (columns[:, None] + step).clamp(max=width - 1)
    return (rows[:, :, None] * width + columns[:, None, :]).flatten()


def proportions(total: int, shares: tuple[float, float, float]) -> list[int]:
    """Split a number into three parts; the last one takes what rounding leaves.

    Args:
        total: The number.
        shares: Shares of the parts, of any sum.
    """
    counts = [int(total * share / sum(shares)) for share in shares[:2]]
    return [*counts, total - sum(counts)]
