"""Exact poses with the drift of given ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.drift import folder_with_drift, with_drift

FRAMES = 40


@pytest.fixture
def turn() -> tuple[np.ndarray, np.ndarray]:
    """Joints of a person who turns round, and their places."""
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.2, (FRAMES, 24, 3))
    poses[:, 0] = np.linspace(0, 6, FRAMES)[:, None] * [0, 1, 0]
    return poses.reshape(FRAMES, 72), rng.normal(0, 0.1, (FRAMES, 3))


def turned(poses: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Joints that are turned further, each about its own axes."""
    result = Rotation.from_rotvec(poses.reshape(-1, 3)) * Rotation.from_rotvec(by.reshape(-1, 3))
    return result.as_rotvec().reshape(len(poses), 72)


def angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Between joints' rotations, radians."""
    first_turns, second_turns = (Rotation.from_rotvec(each.reshape(-1, 3)) for each in (first, second))
    return (first_turns.inv() * second_turns).magnitude()


def test_an_error_that_all_frames_share_is_drift(turn) -> None:
    poses, places = turn
    drift = np.random.default_rng(1).normal(0, 0.01, 72)
    given = turned(poses, np.tile(drift, (FRAMES, 1)))
    roots = Rotation.from_rotvec(poses[:, :3])
    given_places = places + np.array([0.001, 0.002, -0.003]) + roots.apply([0.004, 0.0, 0.001])
    found, found_places = with_drift(poses, places, given, given_places)
    assert angles(found, given).max() < 1e-6
    np.testing.assert_allclose(found_places, given_places, atol=1e-9)


def test_errors_that_differ_among_frames_are_no_drift(turn) -> None:
    poses, places = turn
    rng = np.random.default_rng(2)
    given = turned(poses, rng.normal(0, 0.01, (FRAMES, 72)))
    found, found_places = with_drift(poses, places, given, places + rng.normal(0, 0.002, (FRAMES, 3)))
    assert angles(found, poses).mean() < 0.25 * angles(given, poses).mean()
    assert np.linalg.norm(found_places - places, axis=1).mean() < 0.002


def test_folder_has_drift_in_training_frames_only(turn, tmp_path: Path) -> None:
    poses, places = turn
    subject, folder = tmp_path / "subject", tmp_path / "drifting"
    (subject / "poses").mkdir(parents=True)
    (subject / "subject.json").write_text(json.dumps({"train": [5, 30], "test": [30, FRAMES]}))
    np.savez(subject / "truth.npz", betas=np.zeros((1, 10)), poses=poses, transl=places)
    given = turned(poses, np.full((FRAMES, 72), 0.01))[5:30]
    near = {"global_orient": given[:, :3], "body_pose": given[:, 3:], "transl": places[5:30]}
    np.savez(subject / "poses" / "anim_nerf_train.npz", **near)
    for _ in range(2):  # a folder of an earlier run is replaced
        assert folder_with_drift(subject, folder) == folder
    written = np.load(folder / "drift.npz")
    assert angles(written["poses"][5:30], given).max() < 1e-6
    others = np.r_[0:5, 30:FRAMES]
    assert np.array_equal(written["poses"][others], poses[others])
    assert (folder / "subject.json").samefile(subject / "subject.json")
    assert sorted(path.name for path in subject.iterdir()) == ["poses", "subject.json", "truth.npz"]
