"""Grids of occupied cells and the operations on them: dilate, keep the largest part, fill from points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from instantavatar_ns.utils.cells import nearest_cell_rows


@dataclass(frozen=True)
class OccupiedCells:
    """A box and which of its cells are occupied.

    Attributes:
        aabb: Lower and upper corner, metres.
        binaries: One flag per cell.
        filled: A smaller box around all occupied cells, if it is known. It spares rays the way through free ones.
    """

    aabb: Float[Tensor, "6"]
    binaries: Bool[Tensor, "x y z"]
    filled: Float[Tensor, "6"] | None = None


def dilate(binaries: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x y z"]:
    """Add the 26 neighbours of every occupied cell."""
    return F.max_pool3d(binaries[None, None].float(), kernel_size=3, stride=1, padding=1)[0, 0] > 0


def largest_component(binaries: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x y z"]:
    """Keep the largest set of cells that are connected through faces; nothing stays nothing.

    The labels are found on the host, by scipy: a synchronisation, every so many steps, of a few milliseconds.
    """
    labels, count = ndimage.label(binaries.cpu().numpy())  # pyright: ignore[reportGeneralTypeIssues]
    if count <= 1:
        return binaries
    labels = torch.from_numpy(labels).to(binaries.device)
    sizes = torch.bincount(labels.flatten(), minlength=count + 1)
    sizes[0] = 0  # the background
    return labels == sizes.argmax()


def cubic_cells(
    lower: Float[Tensor, "3"], upper: Float[Tensor, "3"], edge: float
) -> tuple[Float[Tensor, "6"], tuple[int, int, int]]:
    """A box of cubic cells around another box, and its cells along each axis. Reads the box's size on the host.

    A ten-thousandth of a cell more than a whole number is rounding, which must not change the shape of a checkpoint.

    Args:
        lower: Lower corner, metres.
        upper: Upper corner, metres.
        edge: Edge of a cell, metres.
    """
    x, y, z = (max(1, math.ceil(extent / edge - 1e-4)) for extent in (upper - lower).tolist())
    slack = lower.new_tensor([x, y, z]) * edge - (upper - lower)
    return torch.cat([lower - slack / 2, upper + slack / 2]), (x, y, z)


def mark_nearest(
    points: Float[Tensor, "*batch 3"], aabb: Float[Tensor, "6"], resolution: tuple[int, int, int]
) -> Bool[Tensor, "x y z"]:
    """Mark the 2x2x2 cells nearest to each point, as `nearest_cell_rows` gives them.

    Args:
        points: Points, metres.
        aabb: Lower and upper corner of the grid, metres.
        resolution: Cells along x, y and z.
    """
    rows = nearest_cell_rows(points.reshape(-1, 3), aabb[:3], aabb[3:], resolution)
    binaries = torch.zeros(resolution, dtype=torch.bool, device=points.device)
    return binaries.flatten().index_fill_(0, rows.flatten(), True).view(resolution)
