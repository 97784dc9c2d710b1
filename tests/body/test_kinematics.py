"""Blend skinning, and the order of the joints' rotations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instantavatar_ns.body.kinematics import blended_transforms, joint_angles, skinned
from instantavatar_ns.body.poses import PoseSequence

VERTICES, JOINTS, FRAMES = 7, 5, 3


def some(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.double)


@pytest.mark.parametrize("own_points", [False, True])
@pytest.mark.parametrize("own_weights", [False, True])
def test_each_vertex_is_the_weighted_mean_of_where_the_joints_take_it(own_points: bool, own_weights: bool) -> None:
    points = some(*[FRAMES] * own_points, VERTICES, 3)
    weights = some(*[FRAMES] * own_weights, VERTICES, JOINTS).softmax(dim=-1)
    transforms = some(FRAMES, JOINTS, 4, 4)
    result = skinned(points, weights, transforms)
    assert result.shape == (FRAMES, VERTICES, 3) and result.is_contiguous()
    for frame in range(FRAMES):
        for vertex in range(VERTICES):
            point = points[frame, vertex] if own_points else points[vertex]
            weight = weights[frame, vertex] if own_weights else weights[vertex]
            taken = [transform[:3, :3] @ point + transform[:3, 3] for transform in transforms[frame]]
            expected = sum(share * place for share, place in zip(weight, taken, strict=True))
            torch.testing.assert_close(result[frame, vertex], expected, rtol=1e-12, atol=1e-12)


def test_one_pose_needs_no_batch() -> None:
    points, weights, transforms = some(VERTICES, 3), some(VERTICES, JOINTS).softmax(dim=-1), some(JOINTS, 4, 4)
    assert torch.equal(skinned(points, weights, transforms), skinned(points, weights, transforms[None])[0])
    assert blended_transforms(weights, transforms).shape == (VERTICES, 3, 4)


@pytest.mark.parametrize("frames", [FRAMES, 0])
def test_root_comes_before_the_other_joints(frames: int) -> None:
    """In poses of no frames too."""
    root, others = some(frames, 3), some(frames, 3 * (JOINTS - 1))
    angles = joint_angles(root, others)
    assert angles.shape == (frames, JOINTS, 3)
    assert torch.equal(angles[:, 0], root) and torch.equal(angles[:, 1:].flatten(1), others)
    poses = PoseSequence(torch.zeros(10), torch.zeros_like(root), torch.zeros_like(others), some(frames, 3))
    again = poses.with_pose(angles, poses.transl)
    assert torch.equal(again.global_orient, root) and torch.equal(again.axis_angles, angles)
