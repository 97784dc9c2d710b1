"""Grids in root space: the pose-union grid that all training frames share, and the grid of a single pose.

Both are the canonical occupied cells, skinned forward (`canonical_grid` says why).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from nerfacc import OccGridEstimator
from torch import Tensor

from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.occupancy.cells import OccupiedCells, cubic_cells, mark_nearest

_POSES_AT_A_TIME = 16  # bounds the memory of skinning
_CANONICAL_CELLS = 2


class PoseUnionGrid(OccGridEstimator):
    """Union, over a set of poses, of the space that the person fills (InstantAvatar section 3.3).

    Args:
        lower: Lower corner of a box in root space that holds the person in all the poses, metres.
        upper: Its upper corner.
        edge: Edge of a cell, metres; see `cell_edge`.
        implementation: What fills it; "triton" does so on a GPU without blocking the host.
    """

    binaries: Bool[Tensor, "1 x y z"]
    aabbs: Float[Tensor, "1 6"]
    occs: Float[Tensor, "cells"]

    def __init__(
        self,
        lower: Float[Tensor, "3"],
        upper: Float[Tensor, "3"],
        edge: float,
        implementation: Literal["torch", "triton"] = "torch",
    ) -> None:
        aabb, resolution = cubic_cells(lower, upper, edge)
        super().__init__(aabb.cpu(), list(resolution))
        self.binaries.fill_(True)
        self.implementation = implementation

    @property
    def cells(self) -> OccupiedCells:
        """The box and its occupied cells."""
        return OccupiedCells(self.aabbs[0], self.binaries[0])

    @torch.no_grad()
    def refresh(
        self,
        canonical: CanonicalOccupancy,
        deformer: FastSnarfDeformer,
        bone_transforms: Float[Tensor, "poses joints 4 4"],
    ) -> None:
        """Skin the occupied canonical cells into every pose and take the union.

        Args:
            canonical: Occupied cells, one of each voxel of the deformer.
            deformer: Skins them.
            bone_transforms: The poses, from the canonical one to root space.
        """
        x, y, z = self.binaries.shape[1:]
        if self.implementation == "triton":
            # Triton is imported where it is used: it is no part of PyTorch on every platform.
            from instantavatar_ns.occupancy.posed_grid_triton import union_triton

            union = union_triton(canonical, deformer, bone_transforms, self.aabbs[0], (x, y, z))
        else:
            points = canonical.occupied_centers()
            union = torch.zeros_like(self.binaries[0])
            for poses in bone_transforms.split(_POSES_AT_A_TIME):
                union |= mark_nearest(deformer.skin(points, poses), self.aabbs[0], (x, y, z))
        self.binaries[0] = union
        self.occs.copy_(union.flatten())


def cell_edge(canonical: CanonicalOccupancy) -> float:
    """Edge of the cells of posed grids, metres: twice a canonical cell's, so that skin may stretch to double."""
    return _CANONICAL_CELLS * float(((canonical.aabbs[0, 3:] - canonical.aabbs[0, :3]) / canonical.resolution).max())


@torch.no_grad()
def pose_cells(
    canonical: CanonicalOccupancy,
    deformer: FastSnarfDeformer,
    bone_transforms: Float[Tensor, "joints 4 4"],
    implementation: Literal["torch", "triton"] = "torch",
) -> OccupiedCells:
    """Occupied cells of one pose, for rendering.

    Args:
        canonical: Occupied cells, one of each voxel of the deformer.
        deformer: Skins them.
        bone_transforms: The pose, from the canonical one to root space.
        implementation: "torch" makes a grid that just holds the pose, whose size is read on the host; "triton"
            makes one with a fixed number of cells, without synchronising.
    """
    if implementation == "triton":
        from instantavatar_ns.occupancy.posed_grid_triton import pose_cells_triton

        return pose_cells_triton(canonical, deformer, bone_transforms, _CANONICAL_CELLS)
    points = deformer.skin(canonical.occupied_centers(), bone_transforms)
    if len(points) == 0:
        empty = torch.zeros((1, 1, 1), dtype=torch.bool, device=points.device)
        return OccupiedCells(points.new_tensor([0, 0, 0, 1, 1, 1]), empty)
    edge = cell_edge(canonical)
    aabb, resolution = cubic_cells(points.amin(dim=0) - edge, points.amax(dim=0) + edge, edge)
    return OccupiedCells(aabb, mark_nearest(points, aabb, resolution))


def posed_bounds(
    vertices: Float[Tensor, "vertices 3"],
    skinning_weights: Float[Tensor, "vertices joints"],
    bone_transforms: Float[Tensor, "poses joints 4 4"],
) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Corners of the box in root space around the body in all given poses, metres.

    Args:
        vertices: Canonical body, metres.
        skinning_weights: Its skinning weights.
        bone_transforms: The poses, from the canonical one to root space.
    """
    lowers, uppers = [], []
    for poses in bone_transforms.split(_POSES_AT_A_TIME):
        posed = skinned(vertices, skinning_weights, poses)
        lowers.append(posed.amin(dim=(0, 1)))
        uppers.append(posed.amax(dim=(0, 1)))
    return torch.stack(lowers).amin(dim=0), torch.stack(uppers).amax(dim=0)
