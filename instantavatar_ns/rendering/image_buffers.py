"""The buffers of images: as large as their renderings need, within a budget of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from instantavatar_ns.occupancy.compositing import Pixels
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules
from instantavatar_ns.rendering.render_buffers import BufferSizes

# Most samples that a ray takes in each round; the last takes what is left, whatever stands here. Chosen by numbers of
# samples (benchmarks/image_rounds.py), not by timing.
ROUNDS = (20, 20, 0)
# A person fills a part of the image only: this is about what a ray has in the first round, on average.
_SAMPLES_PER_RAY = 6
_SPARE = 1.25
_WASTE = 2
_MULTIPLE = 1 << 12
# Bytes: 12 + 4 of a sample's place, 8 of its roots' places; of a root, 16 of its place, 24 in the unit cube, 128 of its
# encoding (16 levels), 16 of density and colour.
_SAMPLE_BYTES = 24
_ROOT_BYTES = 184
_LEAST_RAYS = 1 << 12


@dataclass(frozen=True)
class ImageLayout:
    """How an image is rendered: in how many parts, one after the other, and with which buffers in each round."""

    parts: int
    rounds: tuple[BufferSizes, ...]

    def fitted(self, counts: list[list[int]]) -> ImageLayout:
        """A layout for so many samples and roots in each round; the same if all fit, and not too loosely.

        Of rounds behind one that did not hold all nothing is known: what was left out in front hid nothing.
        """
        rounds = list(self.rounds)
        for number, (sizes, (samples, roots)) in enumerate(zip(self.rounds, counts, strict=True)):
            # Samples that were left out had no chance to have roots.
            wanted = samples, round(roots * max(1.0, samples / sizes.samples))
            rounds[number] = BufferSizes(_fitted(sizes.samples, wanted[0]), _fitted(sizes.roots, wanted[1]))
            if not sizes.hold(samples, roots):
                break
        return replace(self, rounds=tuple(rounds))

    def hold(self, counts: list[list[int]]) -> bool:
        """Whether so many fit."""
        return all(sizes.hold(*wanted) for sizes, wanted in zip(self.rounds, counts, strict=True))

    def megabytes(self) -> float:
        """Memory of the largest round; each gives its own back."""
        return max(_SAMPLE_BYTES * sizes.samples + _ROOT_BYTES * sizes.roots for sizes in self.rounds) / 1e6

    def within(self, megabytes: float, num_rays: int) -> ImageLayout:
        """With twice the parts as often as this needs more memory than that; parts of a few rays may."""
        layout = self
        while layout.megabytes() > megabytes and num_rays > _LEAST_RAYS * layout.parts:
            halves = (BufferSizes(_rounded(half.samples / 2), _rounded(half.roots / 2)) for half in layout.rounds)
            layout = ImageLayout(2 * layout.parts, tuple(halves))
        return layout


def _fitted(size: int, wanted: int) -> int:
    """A size that holds as many with something to spare; the same if it does, and is not a multiple of it."""
    tight = _rounded(wanted * _SPARE)
    return size if wanted <= size <= _WASTE * tight else tight


def _rounded(size: float) -> int:
    return max(1, -(-int(size) // _MULTIPLE)) * _MULTIPLE


class _Counted(Protocol):
    """An image, and how many samples and roots each round of each part has, or would have."""

    @property
    def counts(self) -> Int32[Tensor, "parts rounds 2"]: ...


Image = TypeVar("Image", bound=_Counted)


class RenderedParts(NamedTuple):
    """Pixels, without their samples' weights, and how many samples and roots each round has, or would have."""

    pixels: Pixels
    counts: Int32[Tensor, "parts rounds 2"]


class ImageBuffers:
    """Renders images with `render_rounds`: whole where memory allows, and never with anything left out.

    What fits an image of some number of rays is kept for the next one. The first may be rendered several times.

    Args:
        megabytes: Memory that the buffers may take.
    """

    def __init__(self, megabytes: float) -> None:
        self.megabytes = megabytes
        self._layouts: dict[int, ImageLayout] = {}  # by the number of rays

    def render(self, rays: Rays, pose: RenderPose, avatar: Avatar, rules: SampleRules) -> tuple[Pixels, Tensor]:
        """Pixels of rays, without their samples' weights, and how many samples were looked at."""
        pixels, counts = self.fit(len(rays.directions), partial(render_parts, rays, pose, avatar, rules))
        return pixels, counts[..., 0].sum()[None]

    def fit(self, num_rays: int, render: Callable[[ImageLayout], Image]) -> Image:
        """Render until nothing is missing, each time with buffers that fit better.

        Args:
            num_rays: Number of the image's rays.
            render: Renders the image in a layout.
        """
        while True:
            layout = self._layouts.get(num_rays) or self._first_layout(num_rays)
            image = render(layout)
            # The one time that the host waits for an image: it must not lack anything.
            counts = _most(image.counts.tolist())
            self._layouts[num_rays] = layout.fitted(counts).within(self.megabytes, num_rays)
            if layout.hold(counts):
                return image

    def _first_layout(self, num_rays: int) -> ImageLayout:
        guess = _rounded(_SAMPLES_PER_RAY * num_rays)
        layout = ImageLayout(1, (BufferSizes(guess, guess),) * len(ROUNDS))
        return layout.within(self.megabytes, num_rays)


def render_parts(
    rays: Rays, pose: RenderPose, avatar: Avatar, rules: SampleRules, layout: ImageLayout
) -> RenderedParts:
    """Render rays, part by part; what the buffers do not hold is left out."""
    # Triton is imported where it is used: it is no part of PyTorch on every platform.
    from instantavatar_ns.rendering.image_rounds import render_rounds

    parts = [render_rounds(part, pose, avatar, rules, ROUNDS, layout.rounds) for part in split(rays, layout.parts)]
    rgb, accumulation, depth = (_joined([part[row] for part in parts]) for row in range(3))
    counts = torch.stack([part.counts for part in parts])
    return RenderedParts(Pixels(rgb, accumulation, depth, weights=rgb.new_empty(0)), counts)


def split(rays: Rays, parts: int) -> list[Rays]:
    """Neighbouring rays together, as many in each part but the last."""
    size = max(1, -(-len(rays.directions) // parts))
    directions = rays.directions.split(size)
    if len(rays.origins) == 1:
        return [Rays(rays.origins, part) for part in directions]
    return [Rays(*part) for part in zip(rays.origins.split(size), directions, strict=True)]


def _joined(parts: list[Float[Tensor, "rays *channels"]]) -> Float[Tensor, "all_rays *channels"]:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _most(counts_of_parts: list[list[list[int]]]) -> list[list[int]]:
    """The most samples and roots that any part has, by the round."""
    return [
        [max(numbers) for numbers in zip(*of_round, strict=True)] for of_round in zip(*counts_of_parts, strict=True)
    ]
