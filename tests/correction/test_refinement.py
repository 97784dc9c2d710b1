"""Corrections of poses: how they compose, what holds them, and what follows from them."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from instantavatar_ns.body.canonical import canonical_transforms
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.kinematics import ancestor_table, skinning_transforms
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.posed import pose_body
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.body.smpl import NUM_JOINTS
from instantavatar_ns.correction.pose_error import joint_rotations, pose_error
from instantavatar_ns.correction.refinement import (
    PoseRefinement,
    second_differences,
    spline_basis,
    surface_coordinates,
)
from instantavatar_ns.utils.errors import InputError

FRAMES = 6
TIMES = torch.tensor([0.0, 4.0, 8.0, 12.0, 40.0, 44.0])


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body_model("free")


@pytest.fixture(scope="module")
def poses() -> PoseSequence:
    random = torch.Generator().manual_seed(0)
    orient = torch.tensor([math.pi - 0.2, 0.1, 0.0]) + 0.2 * torch.randn(FRAMES, 3, generator=random)
    body_pose = 0.3 * torch.randn(FRAMES, 69, generator=random)
    transl = torch.tensor([0.0, 0.0, 3.0]) + 0.1 * torch.randn(FRAMES, 3, generator=random)
    return PoseSequence(0.5 * torch.randn(10, generator=random), orient, body_pose, transl)


@pytest.fixture
def world() -> Tensor:
    transform = torch.eye(4)
    transform[:3, :3] = torch.from_numpy(Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix())
    transform[:3, 3] = torch.tensor([0.1, -0.4, 2.0])
    return transform


@pytest.fixture
def refinement(body: BodyModel, poses: PoseSequence, world: Tensor) -> PoseRefinement:
    return PoseRefinement(body, poses, TIMES, world, knot_spacing=8.0)


def disturb(refinement: PoseRefinement, size: float = 0.02) -> None:
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for values in refinement.parameters():
            values.copy_(size * torch.randn(values.shape, generator=random))


def test_without_corrections_poses_are_the_given_ones(
    body: BodyModel, poses: PoseSequence, world: Tensor, refinement: PoseRefinement
) -> None:
    posed = pose_body(body, poses, world)
    assert len(refinement) == len(posed)
    torch.testing.assert_close(refinement.bone_transforms, posed.bone_transforms, atol=1e-5, rtol=0)
    for frame in range(FRAMES):
        torch.testing.assert_close(refinement[frame].world_to_root, posed[frame].world_to_root, atol=1e-5, rtol=0)
        torch.testing.assert_close(refinement[frame].bone_transforms, posed[frame].bone_transforms, atol=1e-5, rtol=0)


def test_poses_turn_about_joints_that_were_moved(
    body: BodyModel, poses: PoseSequence, world: Tensor, refinement: PoseRefinement
) -> None:
    moved = body.with_joints_moved(0.01 * torch.randn(NUM_JOINTS, 3, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(moved.rest(poses.betas)[0], body.rest(poses.betas)[0]), "the surface stays"
    torch.testing.assert_close(canonical_transforms(moved, poses.betas), canonical_transforms(body, poses.betas))
    before, posed = (pose_body(one, poses, world) for one in (body, moved))
    assert (posed.bone_transforms - before.bone_transforms).abs().max() > 0.002
    knots = torch.zeros(refinement.basis.shape[1], NUM_JOINTS + 1, 3)
    refinement.start_from(knots, torch.zeros_like(refinement.start), 0.01, moved.rest(poses.betas)[1])
    torch.testing.assert_close(refinement.bone_transforms, posed.bone_transforms, atol=1e-5, rtol=0)
    torch.testing.assert_close(refinement[1].world_to_root, posed[1].world_to_root, atol=1e-5, rtol=0)


def test_corrections_are_composed_not_added(
    body: BodyModel, poses: PoseSequence, world: Tensor, refinement: PoseRefinement
) -> None:
    """The corrected poses are those that scipy composes."""
    disturb(refinement)
    corrections = refinement.corrections().detach()
    assert corrections[:, :-1].norm(dim=-1).mean() > 0.05, "large enough that adding would differ"
    given = torch.cat([poses.global_orient, poses.body_pose], dim=-1).view(-1, 3)
    turned = Rotation.from_rotvec(corrections[:, :-1].reshape(-1, 3)) * Rotation.from_rotvec(given)
    thetas = torch.from_numpy(turned.as_rotvec()).float().view(FRAMES, 72)
    composed = PoseSequence(poses.betas, thetas[:, :3], thetas[:, 3:], poses.transl + corrections[:, -1])
    posed = pose_body(body, composed, world)
    torch.testing.assert_close(refinement.bone_transforms.detach(), posed.bone_transforms, atol=2e-5, rtol=0)
    torch.testing.assert_close(refinement[3].world_to_root.detach(), posed[3].world_to_root, atol=2e-5, rtol=0)
    added = thetas - (given + corrections[:, :-1].reshape(-1, 3)).view(FRAMES, 72)
    assert added.abs().max() > 1e-3


def test_one_frame_is_its_row_of_the_bank(refinement: PoseRefinement) -> None:
    disturb(refinement)
    for frame in (0, torch.tensor(4)):
        torch.testing.assert_close(
            refinement[frame].bone_transforms, refinement.bone_transforms[int(frame)], atol=1e-5, rtol=0
        )


def test_gradient_reaches_a_frames_remainder_and_the_knots_around_it(refinement: PoseRefinement) -> None:
    posed = refinement[1]
    (posed.bone_transforms.square().sum() + posed.world_to_root.sum()).backward()
    assert refinement.remainders.grad is not None and refinement.knots.grad is not None
    assert refinement.remainders.grad.ne(0).any(dim=1).tolist() == [False, True, False, False, False, False]
    near = refinement.basis[1] > 0
    assert refinement.knots.grad.ne(0).any(dim=1).tolist() == near.tolist() and 0 < near.sum() < len(near)


def test_kinematics_are_those_of_a_walk_down_the_joints(body: BodyModel, poses: PoseSequence) -> None:
    joints, rotations = body.rest(poses.betas)[1], joint_rotations(poses)
    found = skinning_transforms(rotations, poses.transl, joints, ancestor_table(body.parents))
    world = [torch.cat([rotations[:, 0], joints[0].expand(FRAMES, 3)[..., None]], dim=-1)]
    for joint, parent in enumerate(body.parents.tolist()[1:], start=1):
        above = world[parent]
        place = above[..., :3] @ (joints[joint] - joints[parent])[:, None] + above[..., 3:]
        world.append(torch.cat([above[..., :3] @ rotations[:, joint], place], dim=-1))
    for joint, expected in enumerate(world):
        moved = found[:, joint, :3, :3] @ joints[joint] + found[:, joint, :3, 3]
        torch.testing.assert_close(found[:, joint, :3, :3], expected[..., :3], atol=1e-5, rtol=0)
        torch.testing.assert_close(moved, expected[..., 3] + poses.transl, atol=1e-5, rtol=0)


# Time


def test_bending_is_the_integral_of_the_squared_second_derivative_whatever_the_gaps() -> None:
    times = torch.tensor([0.0, 1.0, 2.0, 5.0, 6.0, 10.0])
    straight, curved = 2 * times - 1, 0.5 * times**2
    bending = second_differences(times)
    torch.testing.assert_close(bending @ straight, torch.zeros(4), atol=1e-5, rtol=0)
    # The second derivative is 1 everywhere; each triple stands for half the time it spans.
    expected = (times[2:] - times[:-2]).sum() / 2
    torch.testing.assert_close((bending @ curved).square().sum(), expected)
    # The same wobble costs less across a gap.
    wobble = torch.tensor([0.0, 1.0, 0.0])
    close, far = (second_differences(gap * torch.arange(3.0)) @ wobble for gap in (1, 4))
    assert close.square().sum() == pytest.approx(64 * float(far.square().sum()))


@pytest.mark.parametrize("frames", [1, 2])
def test_too_few_frames_have_no_bending_and_still_a_spline(frames: int) -> None:
    times = torch.arange(frames).float()
    assert second_differences(times).shape == (0, frames)
    torch.testing.assert_close(spline_basis(times, 8.0).sum(dim=1), torch.ones(frames))


@pytest.mark.parametrize("spacing", [0.0, -2.0, float("nan"), float("inf")])
def test_spacing_that_places_no_knots(spacing: float) -> None:
    with pytest.raises(
        InputError, match=r"--pipeline\.model\.pose-knot-spacing: expected a finite number of frames above 0"
    ):
        spline_basis(TIMES, spacing)


def test_splines_sum_to_one_and_hold_straight_lines() -> None:
    basis = spline_basis(TIMES, 8.0)
    assert basis.shape == (FRAMES, 6 + 3), "44 frames in pieces of about 8"
    torch.testing.assert_close(basis.sum(dim=1), torch.ones(FRAMES))
    knots = torch.arange(-1.0, 8.0) * 44 / 6
    torch.testing.assert_close(basis @ knots, TIMES, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "times", [TIMES, torch.arange(1.0), torch.arange(2.0), torch.arange(37.0), torch.arange(0, 300, 3.0)]
)
def test_splines_are_the_uniform_cubic_ones(times: Tensor) -> None:
    """Against their formula, of the distance to a knot in knots."""
    basis = spline_basis(times, 8.0)
    span, pieces = max(float(times[-1] - times[0]), 1.0), basis.shape[1] - 3
    distance = ((times - times[0])[:, None] * pieces / span - torch.arange(-1, pieces + 2)).abs()
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance).clamp_min(0) ** 3 / 6
    torch.testing.assert_close(basis, torch.where(distance < 1, near, far), atol=2e-6, rtol=0)
    assert basis.dtype == times.dtype


def test_prior_has_the_gradient_of_the_whole_to_one_frame(refinement: PoseRefinement) -> None:
    disturb(refinement)
    refinement.start.add_(0.01)
    refinement.certainty.fill_(1.7)
    value = refinement.prior(torch.tensor(2), 0.7, 30.0)
    (3 * value).backward()
    changes = (refinement.corrections().detach() - refinement.start).requires_grad_(True)
    bending = 30.0 * torch.tensordot(refinement.bending, changes, dims=1).square().sum()
    torch.testing.assert_close(value, 0.7 * 1.7 * changes[2].square().sum() + bending)
    (gradient,) = torch.autograd.grad(3 * (0.7 * 1.7 * changes.square().sum() + bending), changes)
    expected = gradient[2].flatten() @ refinement.coordinates
    knots, remainders = refinement.knots.grad, refinement.remainders.grad
    assert knots is not None and remainders is not None
    torch.testing.assert_close(remainders[2], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(knots, refinement.basis[2][:, None] * expected, rtol=1e-4, atol=1e-5)
    assert remainders[[0, 1, 3, 4, 5]].eq(0).all()


def test_prior_takes_few_operations(refinement: PoseRefinement) -> None:
    """Each is a launch in every training step."""
    operations: list[str] = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            operations.append(str(function))
            return function(*args, **(kwargs or {}))

    with Counting():
        refinement.prior(torch.tensor(2), 0.7, 30.0).backward()
    views = ("view", "detach", "t.default", "transpose", "select", "expand", "alias", "empty")
    assert len([name for name in operations if not any(view in name for view in views)]) <= 30, operations


# Coordinates and errors


def test_coordinates_move_the_surface_equally_far_unless_they_do_next_to_nothing(
    body: BodyModel, poses: PoseSequence
) -> None:
    coordinates = surface_coordinates(body, poses, least=0.01)
    rest = body.vertices(poses.betas, poses.global_orient, poses.body_pose, poses.transl)
    given = joint_rotations(poses)
    moved = []
    for column in (1e-3 * coordinates).T:
        correction = column.view(25, 3)
        turned = Rotation.from_rotvec(correction[:-1].repeat(FRAMES, 1)) * Rotation.from_matrix(given.view(-1, 3, 3))
        thetas = torch.from_numpy(turned.as_rotvec()).float().view(FRAMES, 72)
        after = body.vertices(poses.betas, thetas[:, :3], thetas[:, 3:], poses.transl + correction[-1])
        moved.append((after - rest).square().sum(dim=-1).mean().sqrt())
    far = torch.stack(moved)
    assert far.max() < 1.2e-3
    assert (far > 0.8e-3).sum() > 40


def test_error_without_drift_leaves_out_what_is_constant_per_joint(poses: PoseSequence) -> None:
    true = joint_rotations(poses)
    drift = torch.from_numpy(Rotation.from_rotvec([[0.02 * joint, 0, 0.01] for joint in range(24)]).as_matrix())
    found = pose_error(true.double() @ drift, true)
    angles = Rotation.from_matrix(drift.numpy()).magnitude()
    assert found.mean_deg == pytest.approx(math.degrees(angles.mean()), rel=1e-4)
    assert found.drift_deg == pytest.approx(found.mean_deg, rel=1e-4)
    assert found.aligned_deg < 1e-4
    exact = pose_error(true, true)
    assert max(exact) < 1e-4


def test_drift_is_the_chordal_mean_of_the_errors() -> None:
    """Against the rotation nearest to their sum, by singular values."""
    true, estimated = (
        torch.from_numpy(Rotation.random(5 * 24, random_state=seed).as_matrix()).view(5, 24, 3, 3) for seed in (0, 1)
    )
    left, _, right = torch.linalg.svd((estimated.mT @ true).sum(dim=0))
    sign = torch.diag_embed(torch.stack([torch.ones(24), torch.ones(24), torch.linalg.det(left @ right)], dim=1))
    drift = (left @ sign.double() @ right).numpy()
    expected = [Rotation.from_matrix((estimated.mT @ true).flatten(0, 1).numpy()), Rotation.from_matrix(drift)]
    found = pose_error(estimated, true)
    assert [found.mean_deg, found.drift_deg] == pytest.approx([math.degrees(r.magnitude().mean()) for r in expected])


def test_error_of_changing_turns_is_not_taken_for_drift(poses: PoseSequence) -> None:
    true = joint_rotations(poses).double()
    signs = torch.tensor([1.0, -1.0] * (FRAMES // 2))
    turns = Rotation.from_rotvec(signs[:, None].repeat_interleave(24, 0).numpy() * [[math.radians(3), 0, 0]])
    found = pose_error(true @ torch.from_numpy(turns.as_matrix()).view(FRAMES, 24, 3, 3), true)
    assert found.mean_deg == pytest.approx(3, rel=1e-3) and found.aligned_deg == pytest.approx(3, rel=1e-3)
    assert found.drift_deg < 1e-3


def test_corrections_keep_their_meaning_where_coordinates_come_out_otherwise(
    refinement: PoseRefinement, body: BodyModel, poses: PoseSequence, world: Tensor
) -> None:
    disturb(refinement)
    mirrored = -surface_coordinates(body, poses)  # eigenvectors have no sign
    elsewhere = PoseRefinement(body, poses, TIMES, world, mirrored, knot_spacing=8.0)
    elsewhere.load_state_dict(refinement.state_dict())
    torch.testing.assert_close(elsewhere.corrections(), refinement.corrections())


def test_corrections_begin_where_they_are_given(refinement: PoseRefinement) -> None:
    disturb(refinement)
    knots = 0.05 * torch.randn(refinement.basis.shape[1], 25, 3, generator=torch.Generator().manual_seed(2))
    remainders = 0.01 * torch.randn(refinement.start.shape, generator=torch.Generator().manual_seed(3))
    refinement.start_from(knots, remainders, 0.01, refinement.joints)
    expected = torch.einsum("fk,kjr->fjr", refinement.basis, knots) + remainders
    torch.testing.assert_close(refinement.corrections(), expected, atol=1e-5, rtol=0)


def test_the_prior_pulls_to_where_the_corrections_began(refinement: PoseRefinement) -> None:
    knots = 0.05 * torch.randn(refinement.basis.shape[1], 25, 3, generator=torch.Generator().manual_seed(2))
    refinement.start_from(knots, torch.zeros_like(refinement.start), 0.03, refinement.joints)
    assert refinement.prior(torch.tensor(2), 1.0, 1.0).item() < 1e-10
    with torch.no_grad():
        refinement.remainders[2, 0] += 0.01
    pull = refinement.prior(torch.tensor(2), 1.0, 0.0).item()
    assert pull > 0
    # Ten times less than poses usually are off.
    refinement.start_from(knots, torch.zeros_like(refinement.start), 0.0006, refinement.joints)
    with torch.no_grad():
        refinement.remainders[2, 0] += 0.01
    assert refinement.prior(torch.tensor(2), 1.0, 0.0).item() == pytest.approx(100 * pull, rel=1e-3)


def test_the_start_is_kept_with_the_corrections(
    refinement: PoseRefinement, body: BodyModel, poses: PoseSequence, world: Tensor
) -> None:
    knots = 0.05 * torch.randn(refinement.basis.shape[1], 25, 3, generator=torch.Generator().manual_seed(2))
    refinement.start_from(knots, torch.zeros_like(refinement.start), 0.001, refinement.joints + 0.003)
    disturb(refinement)
    resumed = PoseRefinement(body, poses, TIMES, world, knot_spacing=8.0)
    resumed.load_state_dict(refinement.state_dict())
    torch.testing.assert_close(resumed.joints, refinement.joints)
    expected, found = (some.prior(torch.tensor(1), 0.02, 1.0).item() for some in (refinement, resumed))
    assert found == pytest.approx(expected, rel=1e-6)
