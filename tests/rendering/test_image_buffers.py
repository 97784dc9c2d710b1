"""Buffers of images over many images: fog that becomes a person, and images that take turns. What is rendered is only
counted, ray by ray, as `render_rounds` counts it."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from instantavatar_ns.rendering import image_buffers
from instantavatar_ns.rendering.image_buffers import ROUNDS, ImageBuffers, ImageLayout, block_size, joined, split
from instantavatar_ns.rendering.inputs import Rays

SIDE = 540
NUM_RAYS = SIDE**2
MEGABYTES = 2048


class Looks(NamedTuple):
    """Samples on the way of each ray, the number after which it is opaque, and roots of a sample."""

    samples: Tensor
    opaque_after: int
    roots: float = 1.0


class Counted(NamedTuple):
    """An image, as `ImageBuffers` sees it."""

    counts: Tensor


class Counter:
    """Renders images, in order, and notes how."""

    def __init__(self) -> None:
        self.buffers = ImageBuffers(MEGABYTES)
        self.layouts: list[list[ImageLayout]] = []  # of each image's renderings

    def render(self, looks: Looks) -> None:
        renderings: list[ImageLayout] = []

        def count(layout: ImageLayout) -> Counted:
            renderings.append(layout)
            return count_samples(looks, layout)

        image = self.buffers.fit(NUM_RAYS, count)
        self.layouts.append(renderings)
        most = image.counts.amax(dim=0).tolist()
        assert renderings[-1].hold(most), "nothing is missing"
        exact = count_samples(looks, ImageLayout.fitting(((1 << 30, 1 << 30),) * len(ROUNDS), 1)).counts[0]
        assert torch.equal(image.counts.sum(dim=0)[:, 0], exact[:, 0])

    @property
    def changes(self) -> int:
        """How often the layout changed from one rendering to the next."""
        flat = [layout for renderings in self.layouts for layout in renderings]
        return sum(a != b for a, b in pairwise(flat))

    @property
    def renderings(self) -> list[int]:
        return [len(renderings) for renderings in self.layouts]


def count_samples(looks: Looks, layout: ImageLayout) -> Counted:
    """Rays whose samples or roots find no room see nothing of them, and take the next ones in the next round."""
    rays = Rays(torch.zeros(1, 3), looks.samples[:, None].expand(-1, 3))
    counts = []
    for part in split(rays, layout.parts, block_size(NUM_RAYS, layout.parts)):
        left, seen = part.directions[:, 0].clone(), torch.zeros(len(part.directions))
        of_part = []
        for limit, sizes in zip((*ROUNDS[:-1], 1 << 30), layout.rounds, strict=True):
            taken = left.clamp(max=limit) * (seen < looks.opaque_after)
            left -= taken
            held = taken * (taken.double().cumsum(0) <= sizes.samples)
            roots = (held * looks.roots).double()
            seen += held * (roots.cumsum(0) <= sizes.roots)
            of_part.append([int(taken.double().sum()), int(roots.sum())])
        counts.append(of_part)
    return Counted(torch.tensor(counts))


def ellipse(width: float, samples: int) -> Tensor:
    """Samples of rays at a body in the middle of the image, half as wide as this share of it."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    return (samples * (1 - (x / width) ** 2 - (y / 0.9) ** 2).clamp_min(0).sqrt()).round().flatten()


def fog(number: int = 0) -> Looks:
    """All of the grid's box is occupied, and hardly opaque; images differ a little."""
    return Looks(ellipse(0.8 + 0.03 * (number % 3), 250), 1 << 30, 1.2)


def person(number: int = 0) -> Looks:
    return Looks(ellipse(0.3 + 0.02 * (number % 3), 60), 15, 0.7)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("num_rays", [0, 1, 31, 1000, 4096])
def test_parts_put_together_are_in_the_order_of_the_rays(num_rays: int, parts: int) -> None:
    values = torch.arange(3.0 * num_rays).view(-1, 3)
    block = block_size(num_rays, parts)
    assert block % 32 == 0
    for origins in (torch.zeros(1, 3), -values):
        several = split(Rays(origins, values), parts, block)
        assert len(several) <= parts and torch.equal(joined([part.directions for part in several], block), values)
        if len(origins) > 1:
            assert all(torch.equal(part.origins, -part.directions) for part in several)


def test_parts_have_equal_shares_of_a_person_in_the_middle() -> None:
    for parts in (2, 3, 8):
        shares = [
            float(part.directions[:, 0].sum())
            for part in split(Rays(torch.zeros(1, 3), person().samples[:, None]), parts, block_size(NUM_RAYS, parts))
        ]
        assert max(shares) < 1.1 * sum(shares) / parts


def test_fog_that_becomes_a_person() -> None:
    counter = Counter()
    for number in range(20):
        counter.render(fog(number))
    assert counter.renderings[0] <= 3 and counter.renderings[1:] == [1] * 19, "the first settles it"
    layout = counter.layouts[-1][0]
    assert layout.parts > 2 and layout.megabytes() <= MEGABYTES
    total = image_buffers._ROOT_BYTES * 1.2 * float(fog().samples.sum()) / 1e6
    assert layout.parts < 2 * total / MEGABYTES, "no more parts than memory asks for"
    patience = image_buffers._PATIENCE
    for number in range(3 * patience):
        counter.render(person(number))
    assert counter.renderings[20:] == [1] * 3 * patience
    last = counter.layouts[-1][0]
    assert last.parts == 1 and last.megabytes() < 0.2 * layout.megabytes()
    assert {renderings[0] for renderings in counter.layouts[-patience:]} == {last}
    counter.render(fog())
    assert counter.renderings[-1] <= 3


def test_fog_that_clears_slowly() -> None:
    """As between evaluations of a training: rarely rendered twice, rarely another layout."""
    counter = Counter()
    for number in range(100):
        clear = number / 99
        samples = ellipse(0.8 - 0.5 * clear + 0.02 * (number % 3), round(250 - 190 * clear))
        counter.render(Looks(samples, round(15 / max(clear, 1e-3)), 1.2 - 0.5 * clear))
    assert sum(counter.renderings) <= 103 and counter.changes <= 8
    assert counter.layouts[-1][0].parts == 1


def test_images_that_take_turns_share_a_layout() -> None:
    """One has more samples, the other more roots, each several times as many as the other."""
    several = Looks(ellipse(0.6, 90), 60, 0.2), Looks(ellipse(0.25, 60), 60, 2.0)
    counter = Counter()
    for number in range(60):
        counter.render(several[number % 2])
    assert sum(counter.renderings[4:]) == 56
    assert len({renderings[0] for renderings in counter.layouts[4:]}) <= 2


def test_person_that_fills_the_image_after_one_far_away() -> None:
    """Estimates from what was cut off are too high, never for long."""
    counter = Counter()
    counter.render(Looks(ellipse(0.05, 60), 15, 0.7))
    near = Looks(torch.full((NUM_RAYS,), 100.0), 15, 0.7)
    for _ in range(2):
        counter.render(near)
    assert counter.renderings[1] <= 3 and counter.renderings[2] == 1
    layout, exact = counter.layouts[2][0], count_samples(near, counter.layouts[2][0]).counts.amax(dim=0)
    assert layout.parts == 1
    for sizes, (samples, roots) in zip(layout.rounds, exact.tolist(), strict=True):
        assert sizes.samples <= max(2.6 * samples, 1 << 12) and sizes.roots <= max(2.6 * roots, 1 << 12)
