"""Travel over the floor: what a camera that goes along takes part in, and what it leaves to the person."""

import numpy as np
import pytest

from instantavatar_ns.motion.travel import travel

UP = np.array([0.0, 1.0, 0.0])


def path(x, z, height=0.0):
    return np.stack(np.broadcast_arrays(x, height, z), axis=1).astype(float)


def test_straight_way_is_travel_and_height_is_not():
    time = np.linspace(0, 3, 91)
    way = path(0.7 * time, -1.2 * time, 0.9 + 0.1 * np.sin(9 * time))
    found = travel(way, 30.0, UP)
    np.testing.assert_allclose(found, path(0.7 * time, -1.2 * time), atol=1e-9)


@pytest.mark.parametrize(("hertz", "share"), [(0.05, 1.0), (0.25, 0.5), (1.0, 0.0)])
@pytest.mark.parametrize("fps", [15.0, 60.0])
def test_slow_movements_are_travel_and_fast_ones_are_not(hertz, share, fps):
    time = np.arange(int(20 * fps) + 1) / fps
    way = path(np.sin(2 * np.pi * hertz * time), 0 * time)
    np.testing.assert_allclose(np.ptp(travel(way, fps, UP)[:, 0]), share * np.ptp(way[:, 0]), atol=0.02)


def test_first_and_last_frame_are_equally_far_from_the_camera():
    random = np.random.default_rng(0)
    for frames in (1, 2, 3, 50):
        way = np.cumsum(random.normal(1.0, 2.0, size=(frames, 3)) * 0.05, axis=0)
        rest = way - travel(way, 30.0, UP)
        np.testing.assert_allclose((rest[-1] - rest[0])[[0, 2]], 0, atol=1e-9)
        np.testing.assert_allclose(rest[0], way[0], atol=1e-12)


def test_walk_across_the_room_and_back_is_followed():
    time = np.linspace(0, 8, 241)
    way = path(4 - np.abs(time - 4), 0 * time)
    assert np.abs(way - way[0] - travel(way, 30.0, UP)).max() < 1.0
