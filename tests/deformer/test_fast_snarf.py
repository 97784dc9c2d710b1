"""Gradients through the correspondence search, against differences of whole searches, in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_transforms, root_space
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer, skinning_jacobian
from instantavatar_ns.deformer.search import Roots, SearchSettings
from tests.avatars import BETAS, Avatar, points_near, random_bones

EPS = 1e-6  # radians or metres


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body_model("free").double()


@pytest.fixture(scope="module")
def deformer(small_avatar: Avatar) -> FastSnarfDeformer:
    """Coarse, and with a search that goes on until differences of its results mean something."""
    settings = SearchSettings(max_steps=40, converged=1e-12)
    return FastSnarfDeformer(small_avatar.vertices, small_avatar.body.skinning_weights, (32, 32, 8), settings).double()


def pose_body(body: BodyModel, to_canonical: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
    """Root to world, and bone transforms, of a pose [75]: global_orient, body_pose, transl."""
    transforms = body.transforms(BETAS.double(), pose[None, :3], pose[None, 3:72], pose[None, 72:])[0]
    return root_space(transforms, to_canonical)


def test_pose_gradient_agrees_with_differences_of_searches(
    small_avatar: Avatar, body: BodyModel, deformer: FastSnarfDeformer
) -> None:
    """Canonical positions to joint rotations and translation, through the body model and the implicit function.

    Twelve random directions in the space of all 75 numbers; a single wrong one would show in each.
    """
    to_canonical = canonical_transforms(small_avatar.body, BETAS).double()
    pose = 0.3 * torch.randn(75, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    root_to_world, bones = pose_body(body, to_canonical, pose)
    canonical = points_near(small_avatar.vertices, 30, spread=0.01).double()
    world = deformer.skin(canonical, bones) @ root_to_world[:3, :3].T + root_to_world[:3, 3]

    def find(pose: Tensor) -> Roots:
        root_to_world, bones = pose_body(body, to_canonical, pose)
        world_to_root = torch.linalg.inv(root_to_world)
        return deformer(world @ world_to_root[:3, :3].T + world_to_root[:3, 3], deformer.pose(bones))

    leaf = pose.clone().requires_grad_(True)
    roots = find(leaf)
    assert len(roots.point) >= 30
    rows = [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in roots.canonical.flatten()]
    directions = torch.randn(75, 12, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    analytic = (torch.stack(rows) @ directions).view(-1, 3, 12)

    numeric = torch.zeros_like(analytic)
    for number, direction in enumerate(directions.T):
        with torch.no_grad():
            after, before = (find(pose + sign * EPS * direction) for sign in (1, -1))
        assert torch.equal(after.point, roots.point) and torch.equal(before.point, roots.point)
        numeric[:, :, number] = (after.canonical - before.canonical) / (2 * EPS)
    # The weights have kinks where voxels meet; a root within a step of one has no derivative to compare.
    reach = 2 * EPS * numeric.abs().amax(dim=(1, 2))
    edge = (deformer.box.upper - deformer.box.lower) / deformer.box.cells
    place = (roots.canonical.detach() - deformer.box.lower) / edge
    smooth = ((place - place.round()).abs() * edge > reach[:, None]).all(dim=1)
    assert smooth.float().mean() > 0.9
    error = (analytic - numeric)[smooth].norm(dim=1) / numeric[smooth].norm(dim=1)
    assert error.max() < 0.01


def test_point_gradient_is_the_inverse_jacobian(small_avatar: Avatar, deformer: FastSnarfDeformer) -> None:
    bones = random_bones(small_avatar.body, 1)[0].double()
    canonical = points_near(small_avatar.vertices, 20, spread=0.01).double()
    points = deformer.skin(canonical, bones).requires_grad_(True)
    posed = deformer.pose(bones)
    roots = deformer(points, posed)
    (gradient,) = torch.autograd.grad(roots.canonical[:, 1].sum(), points)
    inverse = torch.linalg.inv(skinning_jacobian(roots.canonical.detach(), posed))
    expected = torch.zeros_like(points).index_add(0, roots.point, inverse[:, 1])
    torch.testing.assert_close(gradient, expected)


def test_jacobian_agrees_with_differences_of_skinning(small_avatar: Avatar, deformer: FastSnarfDeformer) -> None:
    bones = random_bones(small_avatar.body, 1)[0].double()
    canonical = points_near(small_avatar.vertices, 300).double()
    jacobian = skinning_jacobian(canonical, deformer.pose(bones))
    columns = [
        (deformer.skin(canonical + step, bones) - deformer.skin(canonical - step, bones)) / (2 * EPS)
        for step in EPS * torch.eye(3).double()
    ]
    error = (jacobian - torch.stack(columns, dim=-1)).flatten(1).norm(dim=1)
    assert (error < 1e-6).float().mean() > 0.99, "all but those that step over the border of a voxel"


def test_gradient_is_left_out_where_none_is_asked_for(small_avatar: Avatar) -> None:
    bones = random_bones(small_avatar.body, 1)[0]
    points = small_avatar.deformer.skin(small_avatar.vertices[::200], bones)
    assert not small_avatar.deformer(points, small_avatar.deformer.pose(bones)).canonical.requires_grad
    asked = bones.clone().requires_grad_(True)
    with torch.no_grad():
        assert not small_avatar.deformer(points, small_avatar.deformer.pose(asked)).canonical.requires_grad
    roots = small_avatar.deformer(points, small_avatar.deformer.pose(asked))
    assert roots.canonical.requires_grad
    plain = small_avatar.deformer(points, small_avatar.deformer.pose(bones))
    torch.testing.assert_close(roots.canonical.detach(), plain.canonical, atol=0, rtol=0)


def test_several_poses_are_skinned_at_once(small_avatar: Avatar) -> None:
    bones = random_bones(small_avatar.body, 3)
    points = small_avatar.vertices[::50]
    together = small_avatar.deformer.skin(points, bones)
    for number in range(3):
        torch.testing.assert_close(together[number], small_avatar.deformer.skin(points, bones[number]))


def test_deformer_holds_nothing_that_a_checkpoint_would_save(small_avatar: Avatar) -> None:
    assert not small_avatar.deformer.state_dict()
    assert not list(small_avatar.deformer.parameters())
