"""Trilinear look-up in a voxel grid whose channels lie together: the layout that makes a look-up one operation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class VoxelBox(nn.Module):
    """An axis-aligned box with samples at its corners and in between; sample (i, j, k) is row (i * ny + j) * nz + k.

    Args:
        lower: Position of the first sample, metres.
        upper: Position of the last sample, metres.
        resolution: Samples along x, y, z.
    """

    lower: Float[Tensor, "3"]
    upper: Float[Tensor, "3"]
    cells: Float[Tensor, "3"]
    corner_rows: Int[Tensor, "8"]

    def __init__(self, lower: Float[Tensor, "3"], upper: Float[Tensor, "3"], resolution: tuple[int, int, int]) -> None:
        super().__init__()
        self.resolution = resolution
        _, ny, nz = resolution
        corners = torch.arange(8, device=lower.device, dtype=torch.int32)
        rows = (corners & 1) * ny * nz + (corners >> 1 & 1) * nz + (corners >> 2)
        self.register_buffer("lower", lower, persistent=False)
        self.register_buffer("upper", upper, persistent=False)
        self.register_buffer("cells", torch.tensor(resolution, device=lower.device) - 1.0, persistent=False)
        self.register_buffer("corner_rows", rows, persistent=False)

    def positions(self, stride: int = 1) -> Float[Tensor, "voxels 3"]:
        """Positions of the samples, metres, in the order of the rows.

        Args:
            stride: Subsampling stride along each axis.
        """
        axes = [torch.linspace(0.0, 1.0, n, device=self.lower.device)[::stride] for n in self.resolution]
        unit = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
        return self.lower + unit * (self.upper - self.lower)

    def contains(self, points: Float[Tensor, "*batch 3"]) -> Bool[Tensor, "*batch"]:
        """Mark the points, metres, that lie in the box."""
        return ((points >= self.lower) & (points <= self.upper)).all(dim=-1)


def corners(points: Float[Tensor, "n 3"], box: VoxelBox) -> tuple[Int[Tensor, "n 8"], Float[Tensor, "n 3"]]:
    """Rows of the eight samples around each point, and its place in their cell (0..1); points outside are clamped.

    Args:
        points: Points, metres.
        box: The voxels.
    """
    _, ny, nz = box.resolution
    unit = ((points - box.lower) * (box.cells / (box.upper - box.lower))).nan_to_num(0.0)
    unit = unit.clamp_min(0.0).minimum(box.cells)
    base = unit.floor().minimum(box.cells - 1)
    x, y, z = base.int().unbind(dim=-1)
    return (x * (ny * nz) + y * nz + z)[:, None] + box.corner_rows, unit - base


def corner_weights(fraction: Float[Tensor, "n 3"]) -> Float[Tensor, "n 8"]:
    """Trilinear weights of the eight corners in the order of `corners`."""
    return _products([(1 - along, along) for along in fraction.unbind(dim=-1)])


def corner_weight_slopes(fraction: Float[Tensor, "n 3"], box: VoxelBox) -> Float[Tensor, "n 3 8"]:
    """Derivatives of the trilinear weights with respect to the position, 1/metres.

    Args:
        fraction: Place in the cell, 0 to 1, as `corners` gives it.
        box: The voxels.
    """
    pairs = [(1 - along, along) for along in fraction.unbind(dim=-1)]
    step = (-torch.ones_like(fraction[:, 0]), torch.ones_like(fraction[:, 0]))
    slopes = [_products([step if axis == other else pairs[other] for other in range(3)]) for axis in range(3)]
    return torch.stack(slopes, dim=1) * (box.cells / (box.upper - box.lower))[:, None]


def _products(pairs: list[tuple[Tensor, Tensor]]) -> Float[Tensor, "n 8"]:
    """One factor of each axis per corner. Long vectors, not broadcast pairs: the latter run several times slower."""
    x, y, z = pairs
    plane = [x[corner & 1] * y[corner >> 1] for corner in range(4)]
    return torch.stack([plane[corner & 3] * z[corner >> 2] for corner in range(8)], dim=-1)


def weighted_rows(
    table: Float[Tensor, "rows channels"], rows: Int[Tensor, "n k"], weights: Float[Tensor, "n k"]
) -> Float[Tensor, "n channels"]:
    """Weighted sum of k rows of a table; one fused look-up, several times faster than gathering on a CPU.

    Args:
        table: The rows.
        rows: Indices of those to sum.
        weights: Their weights.
    """
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")


def interpolate(
    table: Float[Tensor, "voxels channels"], points: Float[Tensor, "n 3"], box: VoxelBox
) -> Float[Tensor, "n channels"]:
    """Trilinear interpolation of a voxel grid.

    Args:
        table: Values of the voxels.
        points: Points, metres; those outside the box take the value of its border.
        box: The voxels.
    """
    rows, fraction = corners(points, box)
    return weighted_rows(table, rows, corner_weights(fraction))
