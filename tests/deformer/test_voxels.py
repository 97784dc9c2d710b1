"""Trilinear interpolation in voxel grids, its weights and their slopes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instantavatar_ns.deformer.voxels import VoxelBox, corner_weight_slopes, corner_weights, corners, interpolate

LOWER, UPPER = torch.tensor([-1.0, 0.5, 2.0]).double(), torch.tensor([1.0, 1.5, 5.0]).double()
SLOPE = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-0.25, 4.0]]).double()


@pytest.fixture
def box() -> VoxelBox:
    return VoxelBox(LOWER, UPPER, (5, 4, 7)).double()


def linear(points: Tensor) -> Tensor:
    return points @ SLOPE + torch.tensor([0.7, -0.3]).double()


def points_in(box: VoxelBox, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return box.lower + torch.rand(count, 3, dtype=torch.float64, generator=generator) * (box.upper - box.lower)


def test_rows_run_along_z_first(box: VoxelBox) -> None:
    positions = box.positions().view(5, 4, 7, 3)
    torch.testing.assert_close(positions[0, 0, 0], LOWER)
    torch.testing.assert_close(positions[4, 3, 6], UPPER)
    torch.testing.assert_close(positions[2, 1, 3], LOWER + torch.tensor([0.5, 1 / 3, 0.5]).double() * (UPPER - LOWER))


def test_stride_takes_every_other_sample(box: VoxelBox) -> None:
    thin = box.positions().view(5, 4, 7, 3)[::2, ::2, ::2].reshape(-1, 3)
    torch.testing.assert_close(box.positions(stride=2), thin)


def test_linear_function_is_interpolated_exactly(box: VoxelBox) -> None:
    points = torch.cat([points_in(box, 500), box.positions()])  # corners, edges and faces too
    torch.testing.assert_close(interpolate(linear(box.positions()), points, box), linear(points))


def test_points_outside_take_the_value_at_the_border(box: VoxelBox) -> None:
    outside = torch.tensor([[-9.0, 1.0, 3.0], [9.0, 9.0, 9.0], [0.0, 1.0, -1e9], [0.0, 1.0, 1e9]]).double()
    expected = linear(outside.maximum(LOWER).minimum(UPPER))
    torch.testing.assert_close(interpolate(linear(box.positions()), outside, box), expected)


def test_numbers_that_are_none_stay_within_the_table(box: VoxelBox) -> None:
    broken = torch.tensor([[torch.nan, 1.0, 3.0], [torch.inf, -torch.inf, torch.nan]]).double()
    rows, fraction = corners(broken, box)
    assert rows.min() >= 0 and rows.max() < 5 * 4 * 7
    assert fraction.isfinite().all()


def test_contains_includes_the_faces(box: VoxelBox) -> None:
    points = torch.stack([LOWER, UPPER, LOWER - 1e-9, UPPER + 1e-9])
    assert box.contains(points).tolist() == [True, True, False, False]


def test_weights_sum_to_one_and_slopes_are_their_derivatives(box: VoxelBox) -> None:
    points, eps = points_in(box, 200), 1e-7
    rows, fraction = corners(points, box)
    torch.testing.assert_close(corner_weights(fraction).sum(dim=-1), torch.ones(200).double())
    slopes = corner_weight_slopes(fraction, box)
    compared = 0
    for axis in range(3):
        step = eps * torch.eye(3)[axis].double()
        (rows_after, after), (rows_before, before) = corners(points + step, box), corners(points - step, box)
        same_cell = ((rows_after == rows) & (rows_before == rows)).all(dim=-1)
        numeric = (corner_weights(after) - corner_weights(before)) / (2 * eps)
        torch.testing.assert_close(slopes[same_cell, axis], numeric[same_cell], atol=1e-6, rtol=1e-6)
        compared += int(same_cell.sum())
    assert compared > 590


def test_no_points_give_no_values(box: VoxelBox) -> None:
    assert interpolate(linear(box.positions()), torch.zeros(0, 3).double(), box).shape == (0, 2)
