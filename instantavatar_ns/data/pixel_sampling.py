"""Choice of the pixels of a training step: patches on the person, or single pixels by where they lie."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from instantavatar_ns.utils.memory import join

_EDGE_WIDTH = 1 / 64  # of the image's larger side, to either side of the silhouette
_SURROUNDINGS_WIDTH = 1 / 16  # of the image's larger side; patches reach half their size farther


class PixelLists(NamedTuple):
    """Flat indices of some pixels of each frame, one frame after the other: drawn from without knowing the frame.

    Attributes:
        pixels: Of all frames.
        first: Place of each frame's first.
        end: Place behind each frame's last.
    """

    pixels: Int[Tensor, "pixels"]
    first: Int[Tensor, "frames"]
    end: Int[Tensor, "frames"]

    @classmethod
    def of_frames(cls, pixels: list[Int[Tensor, "_"]], device: torch.device, in_host_memory: bool) -> PixelLists:
        """Put the lists of all frames together.

        Args:
            pixels: Of each frame. The list is empty afterwards.
            device: Where they are drawn from.
            in_host_memory: See `join`.
        """
        places = torch.tensor([0, *map(len, pixels)], device=device).cumsum(dim=0)
        return cls(join(pixels, device, in_host_memory), places[:-1].contiguous(), places[1:].contiguous())

    def of(self, frame: int) -> Int[Tensor, "pixels"]:
        """Those of one frame."""
        return self.pixels[int(self.first[frame]) : int(self.end[frame])]

    def draw(self, frame: Int[Tensor, "1"], count: int, generator: torch.Generator) -> Int[Tensor, "count"]:
        """Draw pixels of a frame, with repetition.

        Args:
            frame: Index of the frame, which must have some of these pixels.
            count: Number of pixels.
            generator: Random numbers, on the device of the pixels.
        """
        first, end = self.first[frame], self.end[frame]
        share = random_shares(count, self.pixels.device, generator)
        return self.pixels[first + (share * (end - first)).long()].long()


def random_shares(count: int, device: torch.device, generator: torch.Generator) -> Float[Tensor, "{count}"]:
    """Draw numbers from 0 to 1 in double precision: single precision could not name each of a list's last pixels.

    Args:
        count: How many.
        device: That of the generator.
        generator: Random numbers.
    """
    return torch.rand(count, device=device, dtype=torch.float64, generator=generator)


class PersonPixels(NamedTuple):
    """Pixels that patches are centered on.

    Attributes:
        person: On the person.
        with_surroundings: These, and some beside the person, spread evenly; the same memory.
    """

    person: PixelLists
    with_surroundings: PixelLists


def person_pixels(
    masks: Iterable[Float[Tensor, "height width"]],
    device: torch.device,
    dilation: float = 0.0,
    surroundings: float = 0.0,
    in_host_memory: bool = False,
) -> PersonPixels:
    """List the pixels on the person, once, so that a training step draws from them without looking at the mask.

    Args:
        masks: Of each frame, 1 on the person, 0 elsewhere; one is held at a time.
        device: Where the masks are, and where pixels are drawn.
        dilation: How far around the person pixels count as on it; of the image's larger side.
        surroundings: Share of the pixels of `with_surroundings` that lie beside the person.
        in_host_memory: See `join`.
    """
    lists, counts = [], []
    for mask in masks:
        larger = max(mask.shape)
        on_person = _grow(mask > 0.5, round(dilation * larger))
        person = _listed(on_person, in_host_memory)
        beside = _listed(_grow(on_person, round(_SURROUNDINGS_WIDTH * larger)) & ~on_person, in_host_memory)
        count = min(round(surroundings / (1 - surroundings) * len(person)), len(beside))
        evenly = torch.arange(count, device=beside.device) * len(beside) // max(count, 1)
        lists.append(torch.cat([person, beside[evenly]]))
        counts.append(len(person))
    listed = PixelLists.of_frames(lists, device, in_host_memory)
    return PersonPixels(listed._replace(end=listed.first + torch.tensor(counts, device=device)), listed)


class PixelClasses(NamedTuple):
    """Pixels by where they lie.

    Attributes:
        interior: On the person and not near the silhouette. Were the whole person drawn from beside the edge, the near
            side of the silhouette would be drawn more often than the far one, and the avatar would grow by the width of
            its blur.
        edge: In a band to both sides of the silhouette; where the person fills the image, those of `interior`.
    """

    interior: PixelLists
    edge: PixelLists


def pixel_classes(
    masks: Iterable[Float[Tensor, "height width"]], device: torch.device, in_host_memory: bool = False
) -> PixelClasses:
    """List the pixels of both classes, as `person_pixels` does.

    Args:
        masks: Of each frame, 1 on the person, 0 elsewhere; one is held at a time.
        device: Where the masks are, and where pixels are drawn.
        in_host_memory: See `join`.
    """
    interiors, edges = [], []
    for mask in masks:
        inside, reach = mask > 0.5, max(1, round(_EDGE_WIDTH * max(mask.shape)))
        grown, shrunken = _grow(inside, reach), ~_grow(~inside, reach)
        # A person thinner than the band is all edge.
        interiors.append(_listed(shrunken if shrunken.any() else inside, in_host_memory))
        edge = _listed(grown != shrunken, in_host_memory)
        edges.append(edge if len(edge) else interiors[-1])
    return PixelClasses(*(PixelLists.of_frames(pixels, device, in_host_memory) for pixels in (interiors, edges)))


def _listed(mask: Bool[Tensor, "height width"], in_host_memory: bool) -> Int[Tensor, "pixels"]:
    """Flat indices of the pixels that are marked, 32 bits each. Waits for the device to learn how many they are."""
    pixels = mask.flatten().nonzero()[:, 0].int()
    return pixels.cpu() if in_host_memory else pixels


def _grow(mask: Bool[Tensor, "height width"], reach: int) -> Bool[Tensor, "height width"]:
    """Mark the pixels in whose square, cut at the image's border, one is marked; along one axis after the other."""
    if reach == 0:
        return mask
    for axis, size in enumerate(mask.shape):
        place = torch.arange(size, device=mask.device)
        counts = F.pad(mask.cumsum(axis, dtype=torch.int32), (0, 0, 1, 0) if axis == 0 else (1, 0))
        last, before = (place + reach + 1).clamp(max=size), (place - reach).clamp(min=0)
        mask = counts.index_select(axis, last) > counts.index_select(axis, before)
    return mask


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
