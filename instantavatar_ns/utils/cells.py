"""Grids of equal cells in a box: the cell that a point lies in, and the cells nearest to it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


def cell_values(
    values: Shaped[Tensor, "x y z"],
    points: Float[Tensor, "n 3"],
    lower: Float[Tensor, "3"],
    upper: Float[Tensor, "3"],
    size: Int[Tensor, "3"],
) -> tuple[Shaped[Tensor, "n"], Bool[Tensor, "n"]]:
    """Value of the cell that each point lies in, and whether it lies in the box; if not, the value is any cell's.

    Args:
        values: One a cell.
        points: Points, metres. NaN lies outside.
        lower: Lower corner of the box, metres.
        upper: Upper corner of the box, metres.
        size: Cells along x, y and z, on the device: a CUDA graph's kernels may not wait for numbers of the host.
    """
    cell = ((points - lower) / (upper - lower) * size).floor()
    inside = ((cell >= 0) & (cell < size)).all(dim=-1)
    x, y, z = cell.nan_to_num(0.0).long().clamp(min=0).minimum(size - 1).unbind(dim=-1)
    return values[x, y, z], inside


def nearest_cell_rows(
    points: Float[Tensor, "n 3"],
    lower: Float[Tensor, "3"],
    upper: Float[Tensor, "3"],
    resolution: tuple[int, int, int],
) -> Int[Tensor, "n 8"]:
    """Rows of the 2x2x2 cells nearest to each point; cell (i, j, k) is row (i * ny + j) * nz + k.

    Beyond the box, cells at its border take their place. The cells reach at least half an edge to all sides of the
    point, so points of a lattice along the axes may be an edge apart.

    Args:
        points: Points, metres.
        lower: Lower corner of the box, metres.
        upper: Upper corner of the box, metres.
        resolution: Cells along x, y and z.
    """
    size = torch.tensor(resolution, device=points.device)
    corner = torch.arange(8, device=points.device)
    offsets = torch.stack([corner & 1, corner >> 1 & 1, corner >> 2], dim=-1)
    base = ((points - lower) / (upper - lower) * size - 0.5).floor().long()
    x, y, z = (base[:, None] + offsets).clamp(min=torch.zeros_like(size), max=size - 1).unbind(dim=-1)
    return (x * resolution[1] + y) * resolution[2] + z
