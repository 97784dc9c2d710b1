"""Distances of joints that are left if two bodies had theirs at the same places."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.data_in_fit import joints_mm, joints_placed_mm

FRAMES = 40


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_constants_of_bones_are_taken_away(random: np.random.Generator) -> None:
    joints = random.normal(0, 0.4, (FRAMES, 24, 3))
    bones = Rotation.random(FRAMES * 24, random).as_matrix().reshape(FRAMES, 24, 3, 3)
    offsets = random.normal(0, 0.02, (24, 3))
    true = joints + np.einsum("fjab,jb->fja", bones, offsets)
    placed, lengths = joints_placed_mm(joints, bones, true)
    assert joints_mm(joints, true) > 25
    assert placed < 6  # the frames are aligned with joints that are at other places
    np.testing.assert_allclose(lengths, 1000 * np.linalg.norm(offsets, axis=1), rtol=0.2)


def test_what_changes_with_the_frames_stays(random: np.random.Generator) -> None:
    joints = random.normal(0, 0.4, (FRAMES, 24, 3))
    bones = np.tile(np.eye(3), (FRAMES, 24, 1, 1))
    true = joints + random.normal(0, 0.02, joints.shape)
    assert joints_placed_mm(joints, bones, true)[0] == pytest.approx(joints_mm(joints, true), rel=0.1)
    true[FRAMES // 2 :] = joints[FRAMES // 2 :]
    true[: FRAMES // 2] = joints[: FRAMES // 2] + random.normal(0, 0.05, (24, 3))
    assert joints_placed_mm(joints, bones, true)[0] > 40  # the constants of one half are wrong in the other


def test_a_turned_and_scaled_body_is_the_same(random: np.random.Generator) -> None:
    joints = random.normal(0, 0.4, (FRAMES, 24, 3))
    turns = Rotation.random(FRAMES, random).as_matrix()
    true = 1.1 * joints @ turns.swapaxes(1, 2) + random.normal(0, 1, (FRAMES, 1, 3))
    bones = np.tile(np.eye(3), (FRAMES, 24, 1, 1))
    assert joints_mm(joints, true) < 0.1
    assert joints_placed_mm(joints, bones, true)[0] < 0.1
