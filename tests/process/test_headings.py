"""The trunk's heading, from readings that err."""

from __future__ import annotations

import numpy as np
import pytest

from instantavatar_ns.process.headings import trunk_headings
from instantavatar_ns.process.steadiest import steadiest

TIMES = np.linspace(0, 6, 60)


def world_of(headings: np.ndarray) -> np.ndarray:
    """Landmarks of a trunk, x right, z away."""
    world = np.zeros((len(headings), 33, 3))
    across = np.stack([np.cos(headings), np.zeros_like(headings), np.sin(headings)], axis=1)
    for left, half in ((11, 0.18), (23, 0.1)):
        world[:, left], world[:, left + 1] = half * across, -half * across
    return world


def distance(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.abs(np.angle(np.exp(1j * (found - true))))


@pytest.mark.parametrize("turns", [1.0, -1.5, 0.0])
def test_a_turn_is_found_in_spite_of_mirrored_frames_and_gaps(turns: float) -> None:
    true = 2 * np.pi * turns * np.linspace(0, 1, len(TIMES)) + 0.3
    world, found = world_of(true), np.ones(len(TIMES), dtype=bool)
    world[[7, 8, 30, 51], :, 2] *= -1
    found[20:24], world[20:24] = False, 0
    assert distance(trunk_headings(world, TIMES, found), true).max() < 0.1


def test_errors_that_last_are_smoothed_and_motion_is_kept() -> None:
    turn = np.linspace(0, 2 * np.pi, len(TIMES))
    errors = 0.3 * np.sin(2 * turn)  # as the network errs: by the view
    found = trunk_headings(world_of(turn + errors), TIMES, np.ones(len(TIMES), dtype=bool))
    assert distance(found, turn).mean() < 0.5 * np.abs(errors).mean()
    there_and_back = 1.5 * np.sin(TIMES * 2 * np.pi / 6)
    found = trunk_headings(world_of(there_and_back), TIMES, np.ones(len(TIMES), dtype=bool))
    assert distance(found, there_and_back).max() < 0.7
    assert np.corrcoef(found, there_and_back)[0, 1] > 0.97


def test_the_steadiest_path_is_as_far_from_readings_as_allowed() -> None:
    readings = np.sin(TIMES) + 0.1 * np.random.default_rng(0).normal(size=len(TIMES))
    path = steadiest(readings, TIMES, 0.1)
    assert np.sqrt(np.mean((path - readings) ** 2)) == pytest.approx(0.1, rel=1e-3)
    assert np.abs(path - np.sin(TIMES)).mean() < 0.1
    # Unevenly spaced, a straight line stays one.
    uneven = np.cumsum(np.random.default_rng(1).uniform(0.1, 2, 30))
    np.testing.assert_allclose(steadiest(2 * uneven - 1, uneven, 0.1), 2 * uneven - 1, atol=1e-6)
    np.testing.assert_array_equal(steadiest(readings[:2], TIMES[:2], 0.1), readings[:2])
