"""Left and right that change places for some frames are found and put back."""

import numpy as np
import pytest

from instantavatar_ns.process.network import LANDMARK_NAMES, MIRRORED
from instantavatar_ns.process.swaps import swap, swapped_frames


def turning_landmarks(count: int = 60, turn: float = 360.0, seed: int = 0) -> np.ndarray:
    """World landmarks of a person who turns by so many degrees, as noisy as the network's."""
    random = np.random.default_rng(seed)
    rest = np.zeros((33, 3), np.float32)
    heights = {"shoulder": -0.5, "elbow": -0.25, "wrist": 0.0, "hip": 0.0, "knee": 0.4, "ankle": 0.8, "heel": 0.85}
    widths = {"shoulder": 0.18, "elbow": 0.3, "wrist": 0.4, "hip": 0.1, "knee": 0.12, "ankle": 0.14, "heel": 0.14}
    for index, name in enumerate(LANDMARK_NAMES):
        side, _, part = name.partition("_")
        sign = 1 if side == "left" else -1
        rest[index] = sign * widths.get(part, 0.1), heights.get(part, 0.1), 0.05
    angles = np.linspace(0, np.radians(turn), count)
    cos, sin = np.cos(angles), np.sin(angles)
    turns = np.stack(
        [np.stack([cos, 0 * cos, sin], -1), np.tile([0.0, 1, 0], (count, 1)), np.stack([-sin, 0 * cos, cos], -1)], 1
    )
    world = np.einsum("fij,lj->fli", turns, rest) + random.normal(0, 0.02, (count, 33, 3))
    return world.astype(np.float32)


@pytest.mark.parametrize("frames", [[], [20], [20, 21, 40], list(range(10, 18)), [0, 59]])
@pytest.mark.parametrize("limb", ["arms", "legs"])
def test_swapped_frames_are_found(frames: list[int], limb: str) -> None:
    world = turning_landmarks()
    truth = world.copy()
    swap(world, np.array(frames, int), limb)
    found = swapped_frames(world, np.ones(len(world), bool))
    assert found[limb].tolist() == frames
    assert found["legs" if limb == "arms" else "arms"].tolist() == []
    swap(world, found[limb], limb)
    np.testing.assert_array_equal(world, truth)


def test_frames_without_a_person_are_passed_over() -> None:
    world, found = turning_landmarks(), np.ones(60, bool)
    found[25:28] = False
    world[25:28] = 0
    swap(world, np.array([24, 28]), "legs")
    assert swapped_frames(world, found)["legs"].tolist() == [24, 28]


def test_mirror_is_its_own_inverse_and_pairs_sides() -> None:
    assert MIRRORED[MIRRORED].tolist() == list(range(35))
    for index, name in enumerate(LANDMARK_NAMES):
        other = LANDMARK_NAMES[MIRRORED[index]]
        assert name.replace("left", "right") == other or name.replace("right", "left") == other
