"""The body on MHR's vertices: twists that no keypoint shows, the shape, and points within the body."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.files import FREE_BODY
from instantavatar_ns.body.poses import PoseSequence, posed_joints
from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.importing.keypoint_fit import ROUGH_STEPS, fit_keypoints
from instantavatar_ns.importing.surface_fit import fit_surface
from instantavatar_ns.importing.tracks import Track, without_gaps
from tests.importing.tool_files import FRAMES, MHR_INNER, Truth, make_truth, read_body, sam3d_content

TWIST = 15.0
SIGNS = np.resize([1, -1, -1], FRAMES)


def limb(truth, bone, beyond):
    """Numbers of a limb's joints and its axis in the T-pose."""
    first, second = JOINT_NAMES.index(bone), JOINT_NAMES.index(beyond)
    joints = read_body(FREE_BODY).rest(torch.from_numpy(truth.betas).float())[1].numpy()
    axis = joints[second] - joints[first]
    return first, second, axis / np.linalg.norm(axis)


@cache
def twisted(bone, beyond, signs):
    """A person with one limb twisted about its axis, by so many times 15 degrees; what lies beyond it stays."""
    truth = make_truth("wham")
    first, second, axis = limb(truth, bone, beyond)
    turn = Rotation.from_rotvec(np.radians(TWIST) * np.array(signs)[:, None] * axis)
    thetas = truth.thetas.reshape(FRAMES, 24, 3).copy()
    thetas[:, first] = (Rotation.from_rotvec(thetas[:, first]) * turn).as_rotvec()
    thetas[:, second] = (turn.inv() * Rotation.from_rotvec(thetas[:, second])).as_rotvec()
    return replace(truth, thetas=thetas.reshape(FRAMES, 72))


def in_camera(truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """MHR's keypoints and vertices."""
    content = sam3d_content(truth)
    keypoints, vertices = (
        np.stack([person[key] + person["pred_cam_t"] for person in content])
        for key in ("pred_keypoints_3d", "pred_vertices")
    )
    return keypoints.astype(np.float64), vertices


def true_poses(truth):
    values = truth.betas, truth.thetas[:, :3], truth.thetas[:, 3:], truth.transl
    return PoseSequence(*(torch.from_numpy(value).float() for value in values))


def posed(poses):
    return read_body(FREE_BODY).vertices(poses.betas, poses.global_orient, poses.body_pose, poses.transl)


def twist_errors(truth, poses, bone, beyond):
    """Degrees by which a limb is turned too far about its axis."""
    first, _, axis = limb(truth, bone, beyond)
    body = read_body(FREE_BODY)
    true, found = (
        body.transforms(each.betas, each.global_orient, each.body_pose, each.transl)[:, first, :3, :3].numpy()
        for each in (true_poses(truth), poses)
    )
    turns = Rotation.from_matrix(true.swapaxes(1, 2) @ found).as_quat()
    return np.degrees(2 * np.arctan2(turns[:, :3] @ axis, turns[:, 3]))


def fits(truth):
    """Poses of the keypoints alone, and of the vertices too."""
    keypoints, vertices = in_camera(truth)
    alone = fit_keypoints(read_body(FREE_BODY), keypoints, steps=ROUGH_STEPS).poses
    return alone, fit_surface(read_body(FREE_BODY), alone, keypoints, vertices)


@pytest.mark.parametrize(("bone", "beyond"), [("left_hip", "left_knee"), ("right_shoulder", "right_elbow")])
def test_twist_that_differs_between_frames_comes_back(bone, beyond):
    """Even of a round limb: a vertex is the same place of the person in all frames.

    What all frames have in common, a third of the twist, comes back in part only.
    """
    truth = twisted(bone, beyond, tuple(SIGNS))
    alone, fit = fits(truth)
    assert np.abs(twist_errors(truth, alone, bone, beyond)).max() > TWIST
    errors = twist_errors(truth, fit.poses, bone, beyond)
    assert errors.std() < 1 and np.abs(errors).max() < TWIST / 4


@pytest.mark.parametrize(
    ("bone", "beyond", "share"), [("left_hip", "left_knee", 0.4), ("right_shoulder", "right_elbow", 0.7)]
)
def test_some_of_a_twist_that_all_frames_have_comes_back(bone, beyond, share):
    """Only the limb's cross sections tell of it, and thighs are rounder than arms."""
    truth = twisted(bone, beyond, (1,) * FRAMES)
    alone, fit = fits(truth)
    assert twist_errors(truth, alone, bone, beyond).mean() < -0.8 * TWIST
    errors = twist_errors(truth, fit.poses, bone, beyond)
    assert -(1 - share) * TWIST < errors.mean() < 1 and errors.std() < 1


def test_shape_and_places_come_from_the_vertices():
    truth = make_truth("wham")
    alone, fit = fits(truth)
    true = posed(true_poses(truth))
    before, after = ((posed(poses) - true).norm(dim=-1).mean() for poses in (alone, fit.poses))
    assert after < 0.004 and before > 0.010
    heights = [read_body(FREE_BODY).rest(poses.betas)[0][:, 1] for poses in (fit.poses, true_poses(truth))]
    tall, wanted = (float(height.max() - height.min()) for height in heights)
    assert tall == pytest.approx(wanted, abs=0.01)
    assert fit.distance < 0.001


def test_eyes_teeth_and_fingers_spoil_nothing():
    truth = make_truth("wham")
    keypoints, vertices = in_camera(truth)
    body = read_body(FREE_BODY)
    alone = fit_keypoints(body, keypoints, steps=ROUGH_STEPS).poses
    without = fit_surface(body, alone, keypoints, vertices[:, :-MHR_INNER]).poses
    hands = body.skinning_weights[:, [JOINT_NAMES.index("left_hand"), JOINT_NAMES.index("right_hand")]].sum(dim=1)
    fingers = posed(true_poses(truth))[:, hands > 0.5].numpy()
    bent = fingers + np.random.default_rng(0).normal(size=fingers.shape) * 0.02
    spoilt = np.concatenate([vertices, bent.astype(np.float32)], axis=1)
    with_all = fit_surface(body, alone, keypoints, spoilt).poses
    apart = (posed_joints(body, with_all) - posed_joints(body, without)).norm(dim=-1)
    assert apart[:, :22].max() < 0.003


def test_one_frame_is_enough():
    truth = make_truth("wham")
    keypoints, vertices = in_camera(truth)
    body = read_body(FREE_BODY)
    alone = fit_keypoints(body, keypoints[:1], steps=ROUGH_STEPS).poses
    fit = fit_surface(body, alone, keypoints[:1], vertices[:1])
    before, after = ((posed(poses) - posed(true_poses(truth))[:1]).norm(dim=-1).mean() for poses in (alone, fit.poses))
    assert after < 0.010 and after < 0.5 * before


def test_vertices_of_a_gap_lie_between_their_neighbours():
    frames = np.array([3, 4, 7])
    vertices = np.random.default_rng(0).normal(size=(3, 50, 3)).astype(np.float32)
    zeros = np.zeros((3, 72)), np.zeros((3, 3)), np.zeros((3, 10))
    person = without_gaps("0", Track(frames, *zeros, vertices=vertices))
    found = person.track.vertices
    assert found is not None and found.dtype == np.float32
    np.testing.assert_array_equal(found[[0, 1, 4]], vertices)
    np.testing.assert_allclose(found[2], vertices[1] * 2 / 3 + vertices[2] / 3, atol=1e-6)
