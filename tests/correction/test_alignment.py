"""Poses from silhouettes: the body is drawn in known poses, and found again from disturbed ones."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_body_pose
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.kinematics import skinned, skinning_transforms
from instantavatar_ns.body.model import BodyModel, rotation_matrices
from instantavatar_ns.body.smpl import JOINT_NAMES, NUM_JOINTS
from instantavatar_ns.correction import windows
from instantavatar_ns.correction.alignment import Alignment, _fitted_knots, align_to_silhouettes
from instantavatar_ns.correction.refinement import spline_basis
from instantavatar_ns.correction.silhouettes import Silhouettes, distance_to_mask

FRAMES, SIZE, FOCAL = 20, 160, 320.0
LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_KNEE, RIGHT_KNEE, NECK = (
    JOINT_NAMES.index(name) for name in ("left_shoulder", "right_shoulder", "left_knee", "right_knee", "neck")
)
BETAS = torch.zeros(10)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body_model("free")


@pytest.fixture(scope="module")
def rotations(body: BodyModel) -> Tensor:
    """A full turn in an A-pose, upside down as OpenCV's cameras see a person who stands."""
    pose = torch.cat([torch.zeros(3), canonical_body_pose(body)]).view(NUM_JOINTS, 3)
    result = rotation_matrices(pose).repeat(FRAMES, 1, 1, 1)
    turns = [Rotation.from_euler("xy", [math.pi, 2 * math.pi * frame / FRAMES]) for frame in range(FRAMES)]
    result[:, 0] = torch.from_numpy(np.stack([turn.as_matrix() for turn in turns])).float()
    return result


@pytest.fixture(scope="module")
def transl() -> Tensor:
    return torch.tensor([0.0, 0.0, 4.0]).repeat(FRAMES, 1)


TIMES = torch.arange(FRAMES).float()


@pytest.fixture(scope="module")
def basis() -> Tensor:
    return spline_basis(TIMES, 5.0)


@pytest.fixture(scope="module")
def silhouettes(body: BodyModel, rotations: Tensor, transl: Tensor) -> Silhouettes:
    return seen(torch.stack([drawn(body, vertices) for vertices in posed(body, rotations, transl)]))


def posed(body: BodyModel, rotations: Tensor, transl: Tensor) -> Tensor:
    vertices, joints = body.rest(BETAS)
    transforms = skinning_transforms(rotations, transl, joints, body.ancestors)
    return skinned(vertices, body.skinning_weights, transforms)


def drawn(body: BodyModel, vertices: Tensor) -> Tensor:
    """A mask of the body, in clothes one pixel thick, seen by a camera at the origin."""
    pixels = (FOCAL * vertices[:, :2] / vertices[:, 2:] + SIZE / 2).numpy()
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for triangle in np.round(8 * (pixels[body.faces.numpy()] - 0.5)).astype(np.int32):
        cv2.fillConvexPoly(mask, triangle, 255, shift=3)
    return torch.from_numpy(cv2.dilate(mask, np.ones((3, 3), np.uint8)))


def seen(masks: Tensor) -> Silhouettes:
    frames = len(masks)
    eye = torch.eye(4).repeat(frames, 1, 1)
    focal, center = torch.full((frames, 2), FOCAL), torch.full((frames, 2), SIZE / 2)
    return Silhouettes(distance_to_mask(masks), focal, center, eye)


def corrected(knots: Tensor, basis: Tensor, rotations: Tensor, transl: Tensor) -> tuple[Tensor, Tensor]:
    correction = torch.einsum("fk,kjr->fjr", basis, knots)
    return rotation_matrices(correction[:, :-1]) @ rotations, transl + correction[:, -1]


def aligned(found: Alignment, basis: Tensor, rotations: Tensor, transl: Tensor) -> tuple[Tensor, Tensor]:
    correction = torch.einsum("fk,kjr->fjr", basis, found.knots) + found.remainders
    return rotation_matrices(correction[:, :-1]) @ rotations, transl + correction[:, -1]


def test_disturbed_poses_come_back_to_where_the_body_was_seen(
    body: BodyModel, rotations: Tensor, transl: Tensor, basis: Tensor, silhouettes: Silhouettes
) -> None:
    error = 0.05 * torch.randn(basis.shape[1], NUM_JOINTS + 1, 3, generator=torch.Generator().manual_seed(0))
    error[:, -1] *= 0.2
    given = corrected(error, basis, rotations, transl)
    found = align_to_silhouettes(body, BETAS, *given, TIMES, basis, silhouettes)
    assert 0.02 < found.spread < 0.1
    truth = posed(body, rotations, transl)
    before, after = (
        (posed(body, *poses) - truth).norm(dim=-1).mean() for poses in (given, aligned(found, basis, *given))
    )
    assert before > 0.03
    assert after < 0.4 * before


def test_windows_find_nearly_what_is_found_in_all_frames_together(
    body: BodyModel,
    rotations: Tensor,
    transl: Tensor,
    basis: Tensor,
    silhouettes: Silhouettes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = 0.05 * torch.randn(basis.shape[1], NUM_JOINTS + 1, 3, generator=torch.Generator().manual_seed(0))
    error[:, -1] *= 0.2
    given, basis = corrected(error, basis, rotations, transl), spline_basis(TIMES, 2.5)
    truth, after, shares = posed(body, rotations, transl), [], []
    for longest in (windows._LONGEST, 6):
        monkeypatch.setattr(windows, "_LONGEST", longest)
        found = align_to_silhouettes(body, BETAS, *given, TIMES, basis, silhouettes, shares.append)
        after.append((posed(body, *aligned(found, basis, *given)) - truth).norm(dim=-1).mean())
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1.0)
        shares.clear()
    before = (posed(body, *given) - truth).norm(dim=-1).mean()
    assert after[0] < 0.6 * before
    assert after[0] != after[1], "there were several windows"
    assert after[1] < 1.3 * after[0]


def test_jitter_is_taken_out_of_poses(body: BodyModel, rotations: Tensor, transl: Tensor, basis: Tensor) -> None:
    """Errors of each frame's own, which no spline follows, are not taken for a motion that the spline has to steady."""
    rotations = rotations.clone()  # of somebody who turns by a quarter
    turns = [Rotation.from_euler("xy", [math.pi, math.pi / 2 * frame / FRAMES]) for frame in range(FRAMES)]
    rotations[:, 0] = torch.from_numpy(np.stack([turn.as_matrix() for turn in turns])).float()
    silhouettes = seen(torch.stack([drawn(body, vertices) for vertices in posed(body, rotations, transl)]))
    shaken = 0.02 * torch.randn(FRAMES, NUM_JOINTS + 1, 3, generator=torch.Generator().manual_seed(0))
    shaken[:, -1] *= 0.4
    given = rotation_matrices(shaken[:, :-1]) @ rotations, transl + shaken[:, -1]
    found = align_to_silhouettes(body, BETAS, *given, TIMES, basis, silhouettes)
    truth = posed(body, rotations, transl)
    before, after = (
        (posed(body, *poses) - truth).norm(dim=-1).mean() for poses in (given, aligned(found, basis, *given))
    )
    assert before > 0.02
    assert after < 0.5 * before


def test_joints_are_found_where_the_person_turns(
    body: BodyModel, rotations: Tensor, transl: Tensor, basis: Tensor
) -> None:
    """The avatar learns its shape in an A-pose; arms that are raised show where the shoulders are."""
    elsewhere = torch.zeros(NUM_JOINTS, 3)
    elsewhere[LEFT_SHOULDER, 0], elsewhere[RIGHT_SHOULDER, 0] = 0.015, -0.015
    person = body.with_joints_moved(elsewhere)
    outlines = seen(torch.stack([drawn(body, vertices) for vertices in posed(person, rotations, transl)]))
    found = align_to_silhouettes(body, BETAS, rotations, transl, TIMES, basis, outlines).joint_offsets
    assert (found[0] == 0).all(), "the root's place is the body's shift"
    for joint, side in ((LEFT_SHOULDER, 1), (RIGHT_SHOULDER, -1)):
        assert 0.006 < side * found[joint, 0] < 0.014
        assert found[joint, 1:].norm() < 0.005
    raised = rotations[:1].clone()
    raised[:, LEFT_SHOULDER] = raised[:, LEFT_SHOULDER] @ rotation_matrices(torch.tensor([[0.0, 0.0, 1.6]]))[0]
    raised[:, RIGHT_SHOULDER] = raised[:, RIGHT_SHOULDER] @ rotation_matrices(torch.tensor([[0.0, 0.0, -1.6]]))[0]

    def learnt(model: BodyModel) -> Tensor:
        """How far an avatar whose shape is right in the A-pose is off with raised arms."""
        there = [
            (posed(person, some, transl[:1]) - posed(model, some, transl[:1]))[0] for some in (rotations[:1], raised)
        ]
        return (there[1] - there[0]).norm(dim=-1)[body.skinning_weights[:, LEFT_SHOULDER] > 0.9].mean()

    assert learnt(body.with_joints_moved(found)) < 0.8 * learnt(body)


def test_joints_become_as_symmetric_as_people_are(
    body: BodyModel, rotations: Tensor, transl: Tensor, basis: Tensor, silhouettes: Silhouettes
) -> None:
    """What outlines tell little of, a knee that hardly bends and a neck, has its mirror image to go by."""
    wrong = torch.zeros(NUM_JOINTS, 3)
    wrong[LEFT_KNEE], wrong[RIGHT_KNEE] = torch.tensor([0.0, 0.004, 0.008]), torch.tensor([0.0, -0.004, -0.008])
    wrong[NECK, 0] = 0.008
    given = body.with_joints_moved(wrong)
    found = align_to_silhouettes(given, BETAS, rotations, transl, TIMES, basis, silhouettes).joint_offsets
    before, after = wrong, wrong + found
    for joint in (LEFT_KNEE, RIGHT_KNEE, NECK):
        assert after[joint].norm() < 0.35 * before[joint].norm()


def test_poses_that_fill_their_silhouettes_stay(
    body: BodyModel, rotations: Tensor, transl: Tensor, basis: Tensor, silhouettes: Silhouettes
) -> None:
    found = align_to_silhouettes(body, BETAS, rotations, transl, TIMES, basis, silhouettes)
    moved = posed(body, *aligned(found, basis, rotations, transl)) - posed(body, rotations, transl)
    assert moved.norm(dim=-1).mean() < 3e-3


def test_the_body_keeps_its_place(
    body: BodyModel, rotations: Tensor, transl: Tensor, basis: Tensor, silhouettes: Silhouettes
) -> None:
    """Given beside itself, or before itself all the way around, it has as good a canonical shape there."""
    aside = transl + torch.tensor([0.02, 0.0, 0.0])
    shift = basis @ align_to_silhouettes(body, BETAS, rotations, aside, TIMES, basis, silhouettes).knots[:, -1]
    assert shift.mean(dim=0).norm() < 1e-3
    ahead = transl + rotations[:, 0] @ torch.tensor([0.0, 0.0, 0.02])
    shift = basis @ align_to_silhouettes(body, BETAS, rotations, ahead, TIMES, basis, silhouettes).knots[:, -1]
    assert torch.einsum("frc,fr->fc", rotations[:, 0], shift).mean(dim=0).norm() < 1e-3


@pytest.mark.parametrize("frames", [1, 2])
def test_few_frames_do_not_move_good_poses(
    frames: int, body: BodyModel, rotations: Tensor, transl: Tensor, silhouettes: Silhouettes
) -> None:
    basis = spline_basis(TIMES[:frames], 5.0)
    few = Silhouettes(*(value[:frames] for value in vars(silhouettes).values()))
    given = rotations[:frames], transl[:frames]
    found = align_to_silhouettes(body, BETAS, *given, TIMES[:frames], basis, few)
    moved = posed(body, *aligned(found, basis, *given)) - posed(body, *given)
    assert moved.norm(dim=-1).mean() < 0.01


def test_silhouettes_far_from_the_body_change_nothing(
    body: BodyModel, rotations: Tensor, transl: Tensor, basis: Tensor
) -> None:
    masks = torch.zeros(FRAMES, SIZE, SIZE, dtype=torch.uint8)
    masks[:, :12, :12] = 255
    found = align_to_silhouettes(body, BETAS, rotations, transl, TIMES, basis, seen(masks))
    torch.testing.assert_close(found.knots, torch.zeros_like(found.knots), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.remainders, torch.zeros_like(found.remainders), atol=1e-3, rtol=0)


@pytest.mark.parametrize("times", [[*range(90)], [*range(30), *range(100, 140)], [*range(0, 400, 13)], [0, 1]])
def test_knots_are_fitted_as_least_squares_has_it(times: list[int]) -> None:
    basis = spline_basis(torch.tensor(times).float(), 8.0).double()
    values = torch.randn(len(times), 3, generator=torch.Generator().manual_seed(0)).double()
    expected = basis @ (torch.linalg.pinv(basis) @ values)
    torch.testing.assert_close(basis @ _fitted_knots(basis, values), expected, atol=1e-4, rtol=0)
