"""The pictures' command: films beside each other, loops that jump, files that are small enough."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy import ndarray
from PIL import Image, ImageSequence

from instantavatar_ns.utils.errors import InputError
from tools.show_pictures import encode_loop, loop_jump, side_by_side


def film(columns: list[int], top: int = 10, bottom: int = 30, size: int = 40) -> ndarray:
    """A blue bar, four pixels wide, whose left edge is at those columns, one a frame."""
    frames = np.zeros((len(columns), size, size, 4), dtype=np.uint8)
    for frame, column in zip(frames, columns, strict=True):
        frame[top:bottom, column : column + 4] = (0, 0, 255, 255)
    return frames


def test_films_keep_all_that_any_frame_shows_and_stand_on_one_floor() -> None:
    first, second = film([5, 9]), film([20, 20], top=4, bottom=26)
    both = side_by_side([first, second])
    # The second's 22 rows and columns 5 to 12, then 20 to 23, each with its margins of a pixel.
    assert both.shape == (2, 24, 10 + 6, 3)
    blue = (both == (0, 0, 255)).all(axis=-1)
    assert blue[0, 3:23, 1:5].all() and blue[1, 3:23, 5:9].all() and blue[:, 1:23, 11:15].all()
    assert blue.sum() == 2 * (20 + 22) * 4 and (both[~blue] == 255).all()


def test_half_opaque_pixels_are_half_white() -> None:
    half = film([5])
    half[..., 3] //= 2
    assert np.abs(side_by_side([half])[0, 5, 2].astype(int) - (128, 128, 255)).max() <= 1


def test_jump_of_a_loop_is_seen() -> None:
    to_and_fro = [10, 12, 14, 16, 14, 12]
    assert loop_jump(side_by_side([film(to_and_fro)])) == pytest.approx(1.0)
    one_way = [2, 4, 6, 8, 10, 12, 14]
    assert loop_jump(side_by_side([film(one_way)])) == pytest.approx(2.0), "bars that do not touch differ by both"
    assert loop_jump(side_by_side([film([5, 5, 5])])) == 0.0


def test_quality_falls_until_the_file_is_small_enough() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)
    large, best = encode_loop(noise, 40, megabytes=1)
    limit = 0.6 * len(large) / 1e6
    small, quality = encode_loop(noise, 40, limit)
    assert len(small) <= 1e6 * limit < len(large) and quality < best
    opened = Image.open(io.BytesIO(small))
    assert opened.info["loop"] == 0, "for ever"
    durations = [frame.copy().info["duration"] for frame in ImageSequence.Iterator(opened)]
    assert durations == [40] * 4 and opened.size == (64, 48)
    with pytest.raises(InputError, match="--megabytes"):
        encode_loop(noise, 40, megabytes=0.001)
