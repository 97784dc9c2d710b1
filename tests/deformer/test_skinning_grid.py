"""Skinning weights in the space around the body."""

from __future__ import annotations

import torch

from instantavatar_ns.deformer.skinning_grid import (
    SkinningSettings,
    build_skinning_grid,
    canonical_box,
    skinning_box,
)
from instantavatar_ns.deformer.voxels import interpolate
from tests.avatars import Avatar

FAST_SNARF_SKINNING = SkinningSettings(neighbors=30, smoothing_passes=30, sharpness=1.0)


def test_cube_is_a_fifth_larger_than_the_body_and_flat_in_the_skinning_box(avatar: Avatar) -> None:
    center, half = canonical_box(avatar.vertices)
    extent = avatar.vertices.amax(dim=0) - avatar.vertices.amin(dim=0)
    torch.testing.assert_close(2 * half, 1.2 * extent.max())
    torch.testing.assert_close(2 * center, avatar.vertices.amax(dim=0) + avatar.vertices.amin(dim=0))
    box = skinning_box(avatar.vertices, (128, 128, 32))
    torch.testing.assert_close(box.upper - box.lower, 2 * half * torch.tensor([1.0, 1.0, 0.25]))
    assert box.contains(avatar.vertices).all(), "the flattened box must hold the whole body"


def test_every_voxels_weights_are_a_partition_of_one(avatar: Avatar) -> None:
    weights = avatar.deformer.skinning_weights
    assert weights.shape == (128 * 128 * 32, 24)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(len(weights)), atol=1e-5, rtol=0)


def test_weights_at_the_skin_are_those_of_the_body(avatar: Avatar) -> None:
    """The grid is smoothed and sharpened, so joints differ; nowhere does another bone take over a rigid part."""
    weights = interpolate(avatar.deformer.skinning_weights, avatar.vertices, avatar.deformer.box)
    expected = avatar.body.skinning_weights
    assert (weights - expected).abs().sum(dim=-1).mean() < 0.2
    largest, bone = expected.max(dim=-1)
    rigid = largest > 0.95
    assert rigid.float().mean() > 0.2
    assert (weights.argmax(dim=-1) == bone)[rigid].all()


def test_a_turning_limb_takes_along_what_the_body_takes_along(avatar: Avatar) -> None:
    """Fast-SNARF's own smoothing moves less than half of what lies right at a joint as the body moves it."""
    box, body = avatar.deformer.box, avatar.body
    vertices, expected = avatar.vertices, body.skinning_weights
    joint = (expected.max(dim=-1).values < 0.9).nonzero()[:, 0]
    errors = []
    for settings in (FAST_SNARF_SKINNING, SkinningSettings(sharpness=1.0)):
        weights = interpolate(build_skinning_grid(vertices, expected, box, settings), vertices, box)
        errors.append((weights - expected)[joint].abs().sum(dim=-1).mean())
    assert errors[1] < 0.5 * errors[0]


def test_sharpness_gives_each_point_more_of_its_main_bone() -> None:
    vertices = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    skinning_weights = torch.zeros(2, 24)
    skinning_weights[:, 3], skinning_weights[:, 6] = 0.75, 0.25
    box = skinning_box(vertices, (4, 4, 4))
    grid = build_skinning_grid(vertices, skinning_weights, box, SkinningSettings(neighbors=1, sharpness=2.0))
    torch.testing.assert_close(grid[:, [3, 6]], torch.tensor([0.9, 0.1]).expand(64, 2))


def test_one_voxel_takes_the_inverse_distance_mean_of_its_neighbors() -> None:
    """The outermost voxels are not smoothed: with 30 vertices each is the weighted mean of all of them."""
    generator = torch.Generator().manual_seed(0)
    vertices = torch.rand(30, 3, generator=generator)
    skinning_weights = torch.rand(30, 24, generator=generator).softmax(dim=-1)
    box = skinning_box(vertices, (6, 6, 6))
    grid = build_skinning_grid(vertices, skinning_weights, box, FAST_SNARF_SKINNING).view(6, 6, 6, 24)
    corner = box.lower
    closeness = 1 / (vertices - corner).norm(dim=-1).clamp(1e-4, 1.0)
    expected = (closeness[:, None] * skinning_weights).sum(dim=0) / closeness.sum()
    torch.testing.assert_close(grid[0, 0, 0], expected)


def test_weights_change_smoothly_between_voxels(avatar: Avatar) -> None:
    """Without smoothing they flip within one voxel where two parts of the body face one another: a change of 2."""
    grid = avatar.deformer.skinning_weights.view(128, 128, 32, 24)
    change = (grid[1:] - grid[:-1]).abs().sum(dim=-1)
    assert change[2:-2, 2:-2, 2:-2].max() < 1.3
