"""The buffers of images: as large as their renderings need, within a budget of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from typing import NamedTuple, Protocol, TypeVar

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from instantavatar_ns.rendering.capacity import BufferSizes, shrunk
from instantavatar_ns.rendering.composite import Pixels
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules

# Most samples that a ray takes in each round; the last takes what is left, whatever stands here. Of eight choices the
# fastest for dev-male's novel motion on an H200, at 540 and at 1080 pixels.
ROUNDS = (24, 12, 16, 0)
# A person fills a part of the image only: this is about what a ray has in the first round, on average.
_SAMPLES_PER_RAY = 6
# Images after which buffers may shrink: poses and cameras that alternate must not resize them at every turn.
_PATIENCE = 8
# Bytes: 12 + 4 of a sample's place, 8 of its roots' places; of a root, 16 of its place, 24 in the unit cube, 128 of its
# encoding (16 levels), 16 of density and colour.
_SAMPLE_BYTES = 24
_ROOT_BYTES = 184
_LEAST_RAYS = 1 << 12
# Parts take turns in blocks of neighbouring rays, so that each has its share of the person, who is in the middle.
_BLOCKS_OF_A_PART = 16
_WARP = 32  # rays that a kernel takes together

# Samples and roots of each round, of all parts together if all were as full as the fullest.
_Needs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ImageLayout:
    """Number of parts that an image is rendered in, one after the other, and the buffers of each round."""

    parts: int
    rounds: tuple[BufferSizes, ...]

    @classmethod
    def fitting(cls, needs: _Needs, parts: int) -> ImageLayout:
        """With something to spare."""
        return cls(parts, tuple(BufferSizes.fitting(samples / parts, roots / parts) for samples, roots in needs))

    @classmethod
    def within(cls, megabytes: float, num_rays: int, needs: _Needs, least_parts: int = 1) -> ImageLayout:
        """In as few parts as take no more memory than that; parts of a few rays may."""
        parts, most_parts = least_parts, num_rays // _LEAST_RAYS
        layout = cls.fitting(needs, parts)
        while layout.megabytes() > megabytes and parts < most_parts:
            parts += 1
            layout = cls.fitting(needs, parts)
        return layout

    def hold(self, counts: list[list[int]]) -> bool:
        """Return True if so many fit, in each round of the fullest part."""
        return all(sizes.hold(*wanted) for sizes, wanted in zip(self.rounds, counts, strict=True))

    def needs(self, counts: list[list[int]]) -> _Needs:
        """Samples and roots that an image needs which had so many in each round of its fullest part.

        Samples are no fewer than they will be, since what was left out in front hid nothing.
        """
        needed = (sizes.needed(*wanted) for sizes, wanted in zip(self.rounds, counts, strict=True))
        return tuple((self.parts * samples, self.parts * roots) for samples, roots in needed)

    def megabytes(self) -> float:
        """Memory of the largest round; each gives its own back."""
        return max(_SAMPLE_BYTES * sizes.samples + _ROOT_BYTES * sizes.roots for sizes in self.rounds) / 1e6

    def shrunk(self, fitting: ImageLayout) -> ImageLayout:
        """A layout that fits; of as many parts, only where this one is wasteful."""
        if fitting.parts < self.parts:
            return fitting
        return ImageLayout(self.parts, shrunk(self.rounds, fitting.rounds))


def _larger(needs: _Needs, others: _Needs) -> _Needs:
    return tuple((max(a[0], b[0]), max(a[1], b[1])) for a, b in zip(needs, others, strict=True))


class _Counted(Protocol):
    """An image, and how many samples and roots each round of each part has, or would have."""

    @property
    def counts(self) -> Int32[Tensor, "parts rounds 2"]: ...


Image = TypeVar("Image", bound=_Counted)


class RenderedParts(NamedTuple):
    """Pixels, without their samples' weights, and how many samples and roots each round has, or would have."""

    pixels: Pixels
    counts: Int32[Tensor, "parts rounds 2"]


class _Kept(NamedTuple):
    """Record of the last images of one size: the layout for the next, and the most that they needed."""

    layout: ImageLayout
    most: _Needs
    images: int


class ImageBuffers:
    """Renders images with `render_rounds`: whole where memory allows, and never with anything left out.

    What fits an image of some number of rays is kept for the next one, and grows when one needs more. The first is
    rendered two or three times if the guess was too low.

    Args:
        megabytes: Memory that the buffers may take.
    """

    def __init__(self, megabytes: float) -> None:
        self.megabytes = megabytes
        self._kept: dict[int, _Kept] = {}  # by the number of rays

    def render(self, rays: Rays, pose: RenderPose, avatar: Avatar, rules: SampleRules) -> tuple[Pixels, Tensor]:
        """Pixels of rays, without their samples' weights, and how many samples were looked at."""
        pixels, counts = self.fit(len(rays.directions), partial(render_parts, rays, pose, avatar, rules))
        return pixels, counts[..., 0].sum()[None]

    def fit(self, num_rays: int, render: Callable[[ImageLayout], Image]) -> Image:
        """Render until nothing is missing, each time with buffers that hold more.

        Args:
            num_rays: Number of the image's rays.
            render: Renders the image in a layout.
        """
        first, most, images = self._kept.get(num_rays) or self._guess(num_rays)
        layout, wanted = first, most
        while True:
            image = render(layout)
            # The one thing of an image that blocks the host: it must not lack anything.
            counts = _most(image.counts.tolist())
            needs = layout.needs(counts)
            if layout.hold(counts):
                break
            wanted = _larger(wanted, needs)
            layout = ImageLayout.within(self.megabytes, num_rays, wanted, layout.parts)
        most, images = _larger(most, needs), images + 1
        # What was not enough has been replaced by estimates.
        if layout != first or images >= _PATIENCE:
            layout = layout.shrunk(ImageLayout.within(self.megabytes, num_rays, most))
        if images >= _PATIENCE:
            most, images = _nothing(), 0
        self._kept[num_rays] = _Kept(layout, most, images)
        return image

    def _guess(self, num_rays: int) -> _Kept:
        """Of images that have not been seen; the first one says how good it is."""
        guess = _SAMPLES_PER_RAY * num_rays
        layout = ImageLayout.within(self.megabytes, num_rays, ((guess, guess),) * len(ROUNDS))
        return _Kept(layout, _nothing(), _PATIENCE - 1)


def _nothing() -> _Needs:
    return ((0, 0),) * len(ROUNDS)


def render_parts(
    rays: Rays, pose: RenderPose, avatar: Avatar, rules: SampleRules, layout: ImageLayout
) -> RenderedParts:
    """Render rays, part by part; what the buffers do not hold is left out.

    Args:
        rays: Of the image.
        pose: The pose that they see.
        avatar: The canonical person.
        rules: Places of the samples, and cut-offs.
        layout: Number of parts, and buffers for each.
    """
    # Triton is imported where it is used: it is no part of PyTorch on every platform.
    from instantavatar_ns.rendering.image_rounds import render_rounds

    block = block_size(len(rays.directions), layout.parts)
    parts = [
        render_rounds(part, pose, avatar, rules, ROUNDS, layout.rounds) for part in split(rays, layout.parts, block)
    ]
    rgb, accumulation, depth = (joined([part[row] for part in parts], block) for row in range(3))
    counts = torch.stack([part.counts for part in parts])
    return RenderedParts(Pixels(rgb, accumulation, depth, weights=rgb.new_empty(0)), counts)


def block_size(num_rays: int, parts: int) -> int:
    """Number of neighbouring rays that stay together, whole warps, when an image is split into parts.

    Args:
        num_rays: Of the image.
        parts: Number of parts.
    """
    blocks = 1 if parts == 1 else _BLOCKS_OF_A_PART * parts
    return _WARP * max(1, -(-num_rays // (_WARP * blocks)))


def split(rays: Rays, parts: int, block: int) -> list[Rays]:
    """Split rays into parts of about equal size: block by block to each in turn.

    Args:
        rays: Of the image.
        parts: Number of parts.
        block: Rays that stay together; see `block_size`.
    """
    directions = _dealt(rays.directions, parts, block)
    if len(rays.origins) == 1:
        return [Rays(rays.origins, part) for part in directions]
    return [Rays(*part) for part in zip(_dealt(rays.origins, parts, block), directions, strict=True)]


def _dealt(values: Float[Tensor, "rays 3"], parts: int, block: int) -> list[Float[Tensor, "rays_of_part 3"]]:
    if parts == 1:
        return [values]
    blocks = values.split(block)
    return [torch.cat(blocks[part::parts]) for part in range(min(parts, len(blocks)))]


def joined(parts: list[Float[Tensor, "rays_of_part *channels"]], block: int) -> Float[Tensor, "rays *channels"]:
    """Undo `split` for values of the rays.

    Args:
        parts: Values of each part's rays.
        block: That of `split`.

    Returns:
        Values in the order of the image's rays.
    """
    if len(parts) == 1:
        return parts[0]
    rows = zip_longest(*(part.split(block) for part in parts))
    return torch.cat([piece for piece in chain.from_iterable(rows) if piece is not None])


def _most(counts_of_parts: list[list[list[int]]]) -> list[list[int]]:
    """The most samples and roots that any part has, by the round."""
    return [
        [max(numbers) for numbers in zip(*of_round, strict=True)] for of_round in zip(*counts_of_parts, strict=True)
    ]
