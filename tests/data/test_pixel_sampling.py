"""Which pixels a training step looks at."""

from __future__ import annotations

import pytest
import torch

from instantavatar_ns.data.pixel_sampling import PixelLists, patches, person_pixels, pixel_classes, proportions

CPU = torch.device("cpu")
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
    masks = torch.stack([box_mask(), 1 - box_mask()])
    person, classes = person_pixels(masks, CPU).person, pixel_classes(masks, CPU)
    assert torch.equal(marked(person.of(0)), box_mask() > 0.5)
    assert torch.equal(marked(person.of(1)), box_mask() < 0.5)
    # A 64th of the larger side is one pixel: the band takes a pixel to either side of the silhouette.
    within = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    within[21:39, 11:29] = True
    assert torch.equal(marked(classes.interior.of(0)), within)
    band = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    band[19:41, 9:31] = True
    assert torch.equal(marked(classes.edge.of(0)), band & ~within)
    assert torch.equal(classes.edge.of(1), classes.edge.of(0))


def test_person_thinner_than_the_band_is_drawn_from_as_a_whole() -> None:
    mask = torch.zeros(HEIGHT, WIDTH)
    mask[20:40, 10:12] = 1.0
    interior = pixel_classes(mask[None], CPU).interior.of(0)
    assert torch.equal(interior, person_pixels(mask[None], CPU).person.of(0)) and len(interior) == 40


def test_dilation_adds_surroundings_to_the_person() -> None:
    dilated = person_pixels(box_mask()[None], CPU, dilation=3 / HEIGHT).person
    grown = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    grown[17:43, 7:33] = True
    assert torch.equal(marked(dilated.of(0)), grown)


def test_surroundings_are_a_share_of_the_list_and_lie_all_around() -> None:
    mask = box_mask()
    both = person_pixels(torch.stack([mask, mask]), CPU, surroundings=0.2)
    listed = both.with_surroundings.of(0)
    assert torch.equal(both.with_surroundings.of(1), listed)
    for frame in (0, 1):
        assert torch.equal(marked(both.person.of(frame)), mask > 0.5)
    on_person = mask.flatten()[listed.long()] > 0.5
    assert int(on_person.sum()) == int(mask.sum())
    assert abs(1 - on_person.float().mean() - 0.2) < 0.01
    near = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    reach = round(HEIGHT / 16)
    near[20 - reach : 40 + reach, max(10 - reach, 0) : 30 + reach] = True
    beside = marked(listed[~on_person])
    assert (beside & ~near).sum() == 0
    for part in (beside[:20], beside[40:], beside[:, :10], beside[:, 30:]):
        assert part.any()


def test_surroundings_end_where_there_are_no_more() -> None:
    mask = torch.ones(HEIGHT, WIDTH)
    mask[0, 0] = 0
    assert len(person_pixels(mask[None], CPU, surroundings=0.5).with_surroundings.of(0)) == HEIGHT * WIDTH


def test_patches_are_centered_where_there_is_room() -> None:
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


def test_draws_repeat_with_the_generator_and_reach_every_pixel_of_their_frame_alone() -> None:
    lists = PixelLists(torch.tensor([0, 1, 3, 5, 8, 13, 2, 4]), torch.tensor([0, 2, 6]), torch.tensor([2, 6, 8]))
    first, second = (lists.draw(torch.tensor([1]), 200, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert set(first.tolist()) == {3, 5, 8, 13}
