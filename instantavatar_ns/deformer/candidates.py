"""Bones that are worth a start of the search, in each part of posed space.

Fast-SNARF starts from 13 bones everywhere. Nearly all of those starts are hopeless: a root lies where one or two bones
dominate. The voxels of the canonical body know which; skinned forward and sorted into a coarse posed grid they name,
per cell, the few bones that can explain a point there. That leaves 2-3 starts a point, and finds more roots than the 13
do (docs/architecture.md), since it may name any of the body's bones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool3d

from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.utils.cells import cell_values, nearest_cell_rows
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.linalg import matvec

RESOLUTION = 40  # cells along each axis of the posed box; about 5 cm, a few voxels
VOXELS_PER_AXIS = 64  # of the canonical grid that are skinned
BONES_PER_VOXEL = 2
LEAST_WEIGHT = 0.1  # below it a bone does not explain a voxel
MOST_BONES = 63  # bits of a mask, less its sign


@dataclass(frozen=True)
class BoneCandidates:
    """A coarse grid over the posed box.

    Attributes:
        lower: Corner of the posed box, metres, root space. It holds the voxels that name bones.
        cell: Edges of a cell, metres.
        masks: Candidates of each cell; bit b stands for bone b. See `mask_dtype`.
        num_bones: Bones of the body.
    """

    lower: Float[Tensor, "3"]
    cell: Float[Tensor, "3"]
    masks: Int[Tensor, "cells"]
    num_bones: int

    @property
    def posed_box(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
        """Corners of the box, metres, root space."""
        return self.lower, self.lower + RESOLUTION * self.cell

    def of(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, "n bones"]:
        """Candidates of each point, metres in root space; none outside the posed box."""
        size = torch.full((3,), RESOLUTION, device=points.device)
        table = self.masks.view(RESOLUTION, RESOLUTION, RESOLUTION)
        masks, inside = cell_values(table, points, *self.posed_box, size)
        masks = torch.where(inside, masks, 0)
        return (masks[:, None] >> torch.arange(self.num_bones, device=masks.device) & 1).bool()


def mask_dtype(num_bones: int) -> torch.dtype:
    """Integers that have a bit for each bone besides their sign."""
    return torch.int32 if num_bones < 32 else torch.int64


def subsampling_stride(box: VoxelBox) -> int:
    """Voxel subsampling stride: of the canonical voxels, these are skinned to find the candidates."""
    return max(1, max(box.resolution) // VOXELS_PER_AXIS)


def reach(stride: int) -> int:
    """Cells around an occupied one whose voxels name bones: the nearest of those that are left lies no farther."""
    return max(1, stride // 2)


def near_occupied(occupied: Bool[Tensor, "x y z"], box: VoxelBox) -> Bool[Tensor, "thin_voxels"]:
    """Mark the voxels that are skinned which lie near occupied cells.

    Args:
        occupied: Cells of the canonical box, as many as it has voxels.
        box: The canonical voxels.
    """
    stride = subsampling_stride(box)
    near = max_pool3d(occupied[None, None].float(), 2 * reach(stride) + 1, stride=1, padding=reach(stride)) > 0
    return near[0, 0, ::stride, ::stride, ::stride].flatten()


def main_bones(skinning_weights: Float[Tensor, "voxels bones"], box: VoxelBox) -> Int[Tensor, "thin_voxels 2"]:
    """The bones that explain each of the voxels that are skinned, or the number of bones for none; in every pose.

    Args:
        skinning_weights: Of the canonical voxels.
        box: The canonical voxels.

    Raises:
        InputError: The body has more than `MOST_BONES` joints.
    """
    num_bones = skinning_weights.shape[1]
    if num_bones > MOST_BONES:
        message = f"expected a body of at most {MOST_BONES} joints, found {num_bones}"
        raise InputError("body model", message, "Leave out joints that move little, such as those of the fingers")
    thin = (slice(None, None, subsampling_stride(box)),) * 3
    weight, bone = skinning_weights.view(*box.resolution, num_bones)[thin].flatten(0, 2).topk(BONES_PER_VOXEL)
    return torch.where(weight >= LEAST_WEIGHT, bone, num_bones).int()


def find_bone_candidates(
    voxel_bones: Int[Tensor, "thin_voxels 2"],
    num_bones: int,
    blended: Float[Tensor, "voxels 12"],
    box: VoxelBox,
    occupied: Bool[Tensor, "x y z"] | None = None,
) -> BoneCandidates:
    """Skin every few voxels forward and note their main bones in the posed cells around them.

    Args:
        voxel_bones: See `main_bones`.
        num_bones: Bones of the body.
        blended: The pose's transforms, blended per canonical voxel.
        box: The canonical voxels.
        occupied: Cells of the canonical box, as many as it has voxels: only roots in these are wanted.
    """
    stride = subsampling_stride(box)
    transform = blended.view(*box.resolution, 3, 4)[(slice(None, None, stride),) * 3].reshape(-1, 3, 4)
    posed = matvec(transform[..., :3], box.positions(stride)) + transform[..., 3]

    lower, upper = posed.amin(dim=0), posed.amax(dim=0)
    if occupied is not None:
        near = near_occupied(occupied, box)[:, None]
        voxel_bones = torch.where(near, voxel_bones, num_bones)
        lower = torch.where(near, posed, torch.inf).amin(dim=0)
        upper = torch.where(near, posed, -torch.inf).amax(dim=0)
    # Along the thin axis of a flat pose, such as the canonical one, a share of the box would be less than the distance
    # between two of the voxels, and the cells between them would be empty.
    cell = torch.maximum((upper - lower) / RESOLUTION, stride * (box.upper - box.lower) / box.cells)
    # What is skinned to between two voxels is named by one of them.
    rows = nearest_cell_rows(posed, lower, lower + RESOLUTION * cell, (RESOLUTION, RESOLUTION, RESOLUTION))
    marked = torch.zeros(RESOLUTION**3, num_bones + 1, dtype=torch.bool, device=posed.device)
    marked.view(-1).index_fill_(0, (rows[..., None] * (num_bones + 1) + voxel_bones[:, None]).flatten(), True)
    dtype = mask_dtype(num_bones)
    bits = 1 << torch.arange(num_bones, dtype=dtype, device=posed.device)
    return BoneCandidates(lower, cell, (marked[:, :num_bones] * bits).sum(dim=-1, dtype=dtype), num_bones)
