"""The camera of a clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instantavatar_ns.process.camera import choose_camera
from instantavatar_ns.process.drawn_body import drawn_silhouette, intersection_over_union
from instantavatar_ns.utils.errors import InputError


def test_the_users_focal_length_goes_before_the_tags_and_these_before_an_assumption() -> None:
    assert choose_camera(640, 480, 500.0, 700.0)[::3] == (500.0, "given")
    assert choose_camera(640, 480, None, 700.0)[::3] == (700.0, "tags")
    assumed = choose_camera(640, 480, None, None)
    assert assumed.origin == "assumed"
    assert 0.8 * 640 < assumed.focal < 2.5 * 640
    assert "not known" in assumed.description
    assert "--focal" in assumed.description


@pytest.mark.parametrize("focal", [0.0, -500.0, 26.0, float("nan")])
def test_millimetres_for_pixels_are_refused(focal: float) -> None:
    with pytest.raises(InputError, match="--focal"):
        choose_camera(1920, 1080, focal, None)


def test_the_drawn_silhouette_is_that_of_the_written_camera(tmp_path: Path) -> None:
    camera = choose_camera(61, 41, 50.0, None)
    camera.write(tmp_path / "cameras.npz")
    intrinsic = np.load(tmp_path / "cameras.npz")["intrinsic"]
    # A square that reaches from pixel 20 to 40 and from 10 to 30, two metres away.
    pixels = np.array([[19.5, 9.5, 1], [39.5, 9.5, 1], [39.5, 29.5, 1], [19.5, 29.5, 1]])
    vertices = 2 * pixels @ np.linalg.inv(intrinsic).T
    drawn = drawn_silhouette(vertices, np.array([[0, 1, 2], [0, 2, 3]]), camera)
    wanted = np.zeros((41, 61), dtype=bool)
    wanted[10:30, 20:40] = True
    np.testing.assert_array_equal(drawn, wanted)
    assert intersection_over_union(drawn, wanted) == 1
    assert intersection_over_union(drawn, np.roll(wanted, 10, axis=1)) == pytest.approx(1 / 3)
