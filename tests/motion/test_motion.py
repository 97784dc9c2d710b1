"""Motions are placed where the person stands, and resampled."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.model import load_body_model
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.motion.motion import Motion, load_motion, place_motion, resample
from instantavatar_ns.utils.errors import InputError
from tests.body.bodies import random_body

DOWN_IS_Y = torch.tensor([0.0, -1.0, 0.0])  # OpenCV axes, as PeopleSnapshot's world


def upright(headings, up=(0.0, 0.0, 1.0)):
    """Root rotations that stand along `up` and look in the directions `headings` (radians about it)."""
    stand = Rotation.align_vectors([up], [[0.0, 1.0, 0.0]])[0]
    return torch.tensor(
        np.stack([(Rotation.from_rotvec(h * np.array(up)) * stand).as_rotvec() for h in headings]), dtype=torch.float32
    )


def make_motion(count=6, up=(0.0, 0.0, 1.0), fps=30.0):
    generator = torch.Generator().manual_seed(0)
    body_pose, transl = (0.3 * torch.randn(count, size, generator=generator) for size in (69, 3))
    return Motion(torch.zeros(10), upright(np.linspace(1.0, 2.0, count), up), body_pose, transl, fps, torch.tensor(up))


def pose(global_orient, transl):
    orient, place = (torch.as_tensor(values).view(1, 3) for values in (global_orient, transl))
    return PoseSequence(torch.zeros(10), orient, torch.zeros(1, 69), place)


def distances(points):
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def matrices(rotvecs):
    return Rotation.from_rotvec(rotvecs.double().numpy()).as_matrix()


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0)])
def test_placed_motion_starts_as_the_reference_stands(up):
    motion = make_motion(up=up)
    reference, transl = upright([-0.7], DOWN_IS_Y.tolist())[0], torch.tensor([0.1, -0.3, 5.0])
    placed = place_motion(motion, pose(reference, transl), DOWN_IS_Y)
    np.testing.assert_allclose(matrices(placed.global_orient[:1])[0], matrices(reference[None])[0], atol=1e-6)
    torch.testing.assert_close(placed.transl[0], transl)
    heights = (motion.transl - motion.transl[0]) @ motion.up
    torch.testing.assert_close((placed.transl - transl) @ DOWN_IS_Y, heights, atol=1e-6, rtol=0)


def test_placing_moves_the_posed_body_rigidly(tmp_path):
    np.savez(tmp_path / "body.npz", **{**random_body(), "posedirs": np.zeros((60, 3, 207))})
    body, betas = load_body_model(tmp_path / "body.npz"), torch.zeros(10)
    motion = make_motion()
    placed = place_motion(motion, pose([3.0, 0.2, -0.1], [0.0, 0.0, 5.0]), DOWN_IS_Y)
    before = body.vertices(betas, motion.global_orient, motion.body_pose, motion.transl).reshape(-1, 3)
    after = body.vertices(betas, placed.global_orient, placed.body_pose, placed.transl).reshape(-1, 3)
    torch.testing.assert_close(distances(before), distances(after), atol=1e-4, rtol=0)


def test_tilted_start_keeps_its_tilt():
    """A motion that starts with a bow is turned about the vertical only."""
    bow = Rotation.from_euler("x", 70, degrees=True)
    motion = make_motion(up=(0.0, 1.0, 0.0))
    motion.global_orient[0] = torch.tensor((Rotation.from_euler("y", 40, degrees=True) * bow).as_rotvec())
    up = torch.tensor([0.0, 1.0, 0.0])
    placed = place_motion(motion, pose([0.0] * 3, [0.0] * 3), up)
    np.testing.assert_allclose(matrices(placed.global_orient[:1])[0], bow.as_matrix(), atol=1e-6)


def test_start_lying_on_the_side():
    motion = make_motion(up=(0.0, 1.0, 0.0))
    motion.global_orient[0] = torch.tensor([0.0, 0.0, np.pi / 2])  # left side up
    placed = place_motion(motion, pose([0.0] * 3, [0.0] * 3), torch.tensor([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(matrices(placed.global_orient[:1])[0], matrices(motion.global_orient[:1])[0], atol=1e-6)


@pytest.mark.parametrize("up", [(0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)])
def test_up_axis_is_guessed(tmp_path, up):
    motion = make_motion(up=up)
    np.savez(tmp_path / "m.npz", poses=torch.cat([motion.global_orient, motion.body_pose], 1), trans=motion.transl)
    loaded = load_motion(tmp_path / "m.npz")
    torch.testing.assert_close(loaded.up, torch.tensor(up))
    assert loaded.fps == 30.0
    assert load_motion(tmp_path / "m.npz", fps=12.5).fps == 12.5


def test_motions_of_the_same_poses_are_told_apart():
    """The viewer keeps what it made of a motion by the motion itself; tensors cannot be compared as a whole."""
    motion = make_motion(up=(0.0, 1.0, 0.0))
    kept = {
        motion: "given",
        replace(motion, name="again"): "renamed",
        replace(motion, transl=motion.transl + 1): "moved",
    }
    assert len(kept) == 3 and kept[motion] == "given"


def test_resampled_rotation_takes_the_shortest_arc():
    ends = torch.tensor([[0.0, 3.0, 0.0], [0.0, -3.0, 0.0]])  # 0.28 rad apart, through pi
    motion = Motion(
        torch.zeros(10),
        ends,
        torch.zeros(2, 69),
        torch.tensor([[0.0, 0, 0], [1.0, 2, 4]]),
        10.0,
        torch.tensor([0.0, 1, 0]),
    )
    double = resample(motion, 20.0)
    assert len(double) == 3
    assert double.duration == pytest.approx(motion.duration)
    np.testing.assert_allclose(matrices(double.global_orient)[1], np.diag([-1.0, 1.0, -1.0]), atol=1e-6)
    torch.testing.assert_close(double.transl[1], torch.tensor([0.5, 1.0, 2.0]))


def test_resampling_there_and_back():
    motion = make_motion(count=31)
    back = resample(resample(motion, 60.0), 30.0)
    assert len(back) == 31
    np.testing.assert_allclose(matrices(back.global_orient), matrices(motion.global_orient), atol=1e-5)
    torch.testing.assert_close(back.transl, motion.transl, atol=1e-5, rtol=0)


def test_frame_rate_must_be_positive(tmp_path, capsys):
    np.savez(tmp_path / "m.npz", poses=np.zeros((3, 72)), trans=np.zeros((3, 3)), fps=-1.0)
    with pytest.raises(InputError, match="positive number of frames per second"):
        load_motion(tmp_path / "m.npz")
    for rate in (0.0, -2.0, np.nan, np.inf):
        with pytest.raises(InputError, match="--source-fps: expected a positive number"):
            load_motion(tmp_path / "m.npz", fps=rate)
    assert load_motion(tmp_path / "m.npz", fps=25.0).fps == 25.0
    assert not capsys.readouterr().out


def test_rate_that_is_assumed_is_told(tmp_path, capsys):
    np.savez(tmp_path / "m.npz", poses=np.zeros((3, 72)), trans=np.zeros((3, 3)))
    for _ in range(2):
        assert load_motion(tmp_path / "m.npz").fps == 30.0
    assert capsys.readouterr().out.count("Took 30 frames per second (--source-fps)") == 1


@pytest.mark.parametrize(
    ("unit", "height", "speed", "said"),
    [
        (1.0, 0.9, 1.5, ""),
        (1.0, 0.9, 9.0, ""),
        (1.0, 0.9, 0.0, ""),
        (100.0, 0.9, 1.5, "moves at 150 m/s for half of the time"),
        (1000.0, 0.0, 0.3, "moves at 300 m/s for half of the time"),
        (100.0, 0.9, 0.0, "is 90 m above or below the origin"),
    ],
    ids=["walk", "sprint", "stand", "centimetres", "millimetres", "stand in centimetres"],
)
def test_translations_that_are_no_metres_are_told(tmp_path, capsys, unit, height, speed, said):
    transl = unit * np.linspace([0.0, height, 0.0], [0.0, height, 3 * speed], 91)
    np.savez(tmp_path / "m.npz", poses=np.zeros((91, 72)), trans=transl, fps=30.0)
    motion = load_motion(tmp_path / "m.npz")
    np.testing.assert_allclose(motion.transl, transl, rtol=1e-6)
    text = capsys.readouterr().out
    assert (f"The person {said}: translations must be in metres" in text) if said else not text
