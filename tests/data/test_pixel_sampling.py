"""Which pixels a training step looks at."""

from __future__ import annotations

import pytest
import torch

from instantavatar_ns.data.pixel_sampling import draw, patches, pixel_classes, proportions

HEIGHT, WIDTH = 64, 48


def box_mask() -> torch.Tensor:
    mask = torch.zeros(HEIGHT, WIDTH)
    mask[20:40, 10:30] = 1.0
    return mask


def marked(pixels: torch.Tensor) -> torch.Tensor:
    image = torch.zeros(HEIGHT * WIDTH, dtype=torch.bool)
    image[pixels] = True
    return image.view(HEIGHT, WIDTH)


def test_classes_are_the_person_a_band_around_it_what_is_within_and_all() -> None:
    classes = pixel_classes(torch.stack([box_mask(), 1 - box_mask()]))
    assert len(classes) == 2 and len(classes[0].anywhere) == HEIGHT * WIDTH
    assert torch.equal(marked(classes[0].person), box_mask() > 0.5)
    # A 64th of the larger side is one pixel: the band takes a pixel to either side of the silhouette.
    within = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    within[21:39, 11:29] = True
    assert torch.equal(marked(classes[0].interior), within)
    band = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    band[19:41, 9:31] = True
    assert torch.equal(marked(classes[0].edge), band & ~within)
    assert torch.equal(classes[1].edge, classes[0].edge)


def test_person_thinner_than_the_band_is_drawn_from_as_a_whole() -> None:
    mask = torch.zeros(HEIGHT, WIDTH)
    mask[20:40, 10:12] = 1.0
    (classes,) = pixel_classes(mask[None])
    assert torch.equal(classes.interior, classes.person) and len(classes.person) == 40


def test_dilation_adds_surroundings_to_the_person_alone() -> None:
    (given,), (dilated,) = pixel_classes(box_mask()[None]), pixel_classes(box_mask()[None], dilation=3 / HEIGHT)
    grown = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    grown[17:43, 7:33] = True
    assert torch.equal(marked(dilated.person), grown)
    assert torch.equal(dilated.interior, given.interior) and torch.equal(dilated.edge, given.edge)


def test_patches_are_centred_where_there_is_room() -> None:
    pixels = patches(torch.tensor([30 * WIDTH + 20]), 8, HEIGHT, WIDTH).view(8, 8)
    rows, columns = pixels // WIDTH, pixels % WIDTH
    assert rows[:, 0].tolist() == list(range(26, 34)) and columns[0].tolist() == list(range(16, 24))
    assert (rows == rows[:, :1]).all() and (columns == columns[:1]).all()


def test_patches_at_the_border_are_moved_into_the_image() -> None:
    corners = torch.tensor([0, WIDTH - 1, (HEIGHT - 1) * WIDTH, HEIGHT * WIDTH - 1])
    pixels = patches(corners, 8, HEIGHT, WIDTH).view(4, 64)
    assert all(len(patch.unique()) == 64 for patch in pixels)
    assert all(corner in patch for corner, patch in zip(corners, pixels, strict=True))


def test_patch_larger_than_the_image_stays_in_it() -> None:
    pixels = patches(torch.tensor([7]), 8, 4, 5)
    assert len(pixels) == 64 and pixels.min() == 0 and pixels.max() == 19


@pytest.mark.parametrize(("total", "expected"), [(1000, [600, 300, 100]), (7, [4, 2, 1]), (1, [0, 0, 1])])
def test_proportions_lose_no_ray(total: int, expected: list[int]) -> None:
    assert proportions(total, (0.6, 0.3, 0.1)) == expected
    assert proportions(total, (6, 3, 1)) == expected


def test_draws_repeat_with_the_generator_and_reach_every_pixel() -> None:
    pixels = torch.tensor([3, 5, 8, 13])
    first, second = (draw(pixels, 200, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert set(first.tolist()) == set(pixels.tolist())
