"""Occupancy of the canonical body: the moving maximum of the field's density per cell (InstantAvatar section 3.3).

InstantAvatar keeps its grid in posed space and refreshes it through the deformer, one pose at a time, so that it
forgets what other poses showed. Here the density is recorded where it lives, in canonical space, with one evaluation of
the field; skinned forward, the occupied cells give the grid of any set of poses exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from nerfacc import OccGridEstimator
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor

from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.occupancy.cells import dilate, largest_component
from instantavatar_ns.utils.cells import cell_values

DECAY = 0.8
OPACITY_SCALE = 0.01  # metres: the thickness over which a cell's opacity is judged
OPACITY_THRESHOLD = 0.01


def opacity(density: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Opacity of a centimetre of a given density (1/metres): occupancy and its regulariser judge by it."""
    return 1 - torch.exp(-OPACITY_SCALE * density)


class CanonicalOccupancy(OccGridEstimator):
    """Occupied cells of the canonical box, all of them at first, or those near the body (`start_near`).

    Args:
        box: The canonical voxels; each becomes a cell.
        implementation: What finds the largest component; "triton" does so on a GPU without synchronising.
    """

    binaries: Bool[Tensor, "1 x y z"]
    aabbs: Float[Tensor, "1 6"]
    opacity = staticmethod(opacity)
    occs: Float[Tensor, "cells"]
    resolution: Int[Tensor, "3"]
    grid_coords: Int[Tensor, "cells 3"]

    def __init__(self, box: VoxelBox, implementation: Literal["torch", "triton"] = "torch") -> None:
        super().__init__(torch.cat([box.lower, box.upper]).cpu(), list(box.resolution))
        self.binaries.fill_(True)
        self.implementation = implementation

    @property
    def resolution_xyz(self) -> tuple[int, int, int]:
        """Cells along x, y and z."""
        x, y, z = self.binaries.shape[1:]
        return x, y, z

    def centers(self) -> Float[Tensor, "cells 3"]:
        """Middles of the cells, metres."""
        return self._positions(0.5)

    def jittered(self) -> Float[Tensor, "cells 3"]:
        """One random point in each cell, metres."""
        return self._positions(torch.rand(len(self.grid_coords), 3, device=self.occs.device))

    def random_points(self, count: int) -> tuple[Float[Tensor, "{count} 3"], Bool[Tensor, "{count}"]]:
        """Points anywhere in the box, metres, and whether they lie in occupied cells."""
        lower, upper = self.aabbs[0, :3], self.aabbs[0, 3:]
        drawn = torch.rand(count, 3, device=lower.device)
        # From the numbers, not from the points: a third of the launches that `occupied` takes.
        x, y, z = (drawn * self.resolution).long().minimum(self.resolution - 1).unbind(dim=-1)
        return lower + drawn * (upper - lower), self.binaries[0][x, y, z]

    def _positions(self, within: float | Tensor) -> Float[Tensor, "cells 3"]:
        lower, upper = self.aabbs[0, :3], self.aabbs[0, 3:]
        return lower + (self.grid_coords + within) / self.resolution * (upper - lower)

    def start_near(self, vertices: Float[Tensor, "vertices 3"], reach: float) -> None:
        """Take as occupied the cells that the body reaches into, and what they enclose.

        Skinned, they are the posed body's own surroundings in any pose, so no distance to a posed mesh is needed.

        Args:
            vertices: Canonical body, metres.
            reach: How far from its vertices cells count as near, metres.
        """
        lower, upper = self.aabbs[0, :3], self.aabbs[0, 3:]
        half_diagonal = float(((upper - lower) / self.resolution).norm()) / 2
        farthest = reach + half_diagonal
        centers = self.centers().cpu().numpy()
        distances, _ = KDTree(vertices.cpu().numpy()).query(centers, distance_upper_bound=farthest)
        near = np.isfinite(distances).reshape(self.resolution_xyz)
        inside = ndimage.binary_fill_holes(near)
        self.binaries[0] = torch.from_numpy(np.asarray(inside)).to(self.binaries.device)

    @torch.no_grad()
    def refresh(self, density: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n"]]) -> None:
        """Take the density, 1/metres, at a random point of each cell, and decide again which cells are occupied."""
        torch.maximum(self.occs.mul_(DECAY), density(self.jittered()), out=self.occs)
        cells = opacity(self.occs)
        # Not "greater": a field that is empty everywhere has not begun to learn, and must be sampled everywhere.
        occupied = (cells >= cells.mean().clamp(max=OPACITY_THRESHOLD)).view(self.resolution_xyz)
        if self.implementation == "triton":
            # Triton is imported where it is used: it is no part of PyTorch on every platform.
            from instantavatar_ns.occupancy.components_triton import largest_component_triton as largest
        else:
            largest = largest_component
        self.binaries[0] = largest(dilate(occupied))

    def occupied(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, "n"]:
        """Mark the points, metres, that lie in occupied cells; outside the box none does."""
        binaries, inside = cell_values(self.binaries[0], points, self.aabbs[0, :3], self.aabbs[0, 3:], self.resolution)
        return binaries & inside

    def occupied_centers(self) -> Float[Tensor, "occupied 3"]:
        """Middles of the occupied cells, metres. Their number is read on the host, once per refresh and per pose."""
        return self.centers()[self.binaries.flatten()]
