"""Which bones are worth a start of the search in which part of posed space.

Fast-SNARF starts from 13 bones everywhere. Nearly all of those starts are hopeless: a root lies where one or two bones
dominate. The voxels of the canonical body know which; skinned forward and sorted into a coarse posed grid they name,
per cell, the few bones that can explain a point there. That leaves 2-3 starts a point, and finds more roots than the 13
do (docs/architecture.md), since it may name any of the 24 bones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.utils.linalg import matvec

RESOLUTION = 40  # cells along each axis of the posed box; about 5 cm, a few voxels
VOXELS_PER_AXIS = 64  # of the canonical grid that are skinned
BONES_PER_VOXEL = 2
LEAST_WEIGHT = 0.1  # below it a bone does not explain a voxel
NUM_BONES = 24
NO_BONE = 31


@dataclass(frozen=True)
class BoneCandidates:
    """A coarse grid over the posed box.

    Attributes:
        lower: Corner of the posed box, metres, root space.
        cell: Edges of a cell, metres.
        masks: Candidates of each cell; bit b stands for bone b.
    """

    lower: Float[Tensor, "3"]
    cell: Float[Tensor, "3"]
    masks: Int[Tensor, "cells"]

    @property
    def posed_box(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
        """Corners of the box that holds all skinned voxels, metres, root space."""
        return self.lower, self.lower + RESOLUTION * self.cell

    def of(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, "n 24"]:
        """Candidates of each point; none outside the posed box."""
        cell = ((points - self.lower) / self.cell).floor()
        inside = ((cell >= 0) & (cell < RESOLUTION)).all(dim=-1)
        row = _rows(cell.nan_to_num(0.0).clamp(0, RESOLUTION - 1).long())
        mask = torch.where(inside, self.masks[row], 0)
        return (mask[:, None] >> torch.arange(NUM_BONES, device=mask.device) & 1).bool()


def thinning(box: VoxelBox) -> int:
    """Every so-manieth voxel along each axis is skinned to find the candidates."""
    return max(1, max(box.resolution) // VOXELS_PER_AXIS)


def main_bones(skinning_weights: Float[Tensor, "voxels 24"], box: VoxelBox) -> Int[Tensor, "thin_voxels 2"]:
    """The bones that explain each of the voxels that are skinned, or `NO_BONE`; the same in every pose."""
    thin = (slice(None, None, thinning(box)),) * 3
    weight, bone = skinning_weights.view(*box.resolution, NUM_BONES)[thin].flatten(0, 2).topk(BONES_PER_VOXEL)
    return torch.where(weight >= LEAST_WEIGHT, bone, NO_BONE).int()


def find_bone_candidates(
    voxel_bones: Int[Tensor, "thin_voxels 2"], blended: Float[Tensor, "voxels 12"], box: VoxelBox
) -> BoneCandidates:
    """Skin every few voxels forward and note their main bones in the posed cells around them.

    Args:
        voxel_bones: See `main_bones`.
        blended: The pose's transforms, blended per canonical voxel.
        box: The canonical voxels.
    """
    stride = thinning(box)
    transform = blended.view(*box.resolution, 3, 4)[(slice(None, None, stride),) * 3].reshape(-1, 3, 4)
    posed = matvec(transform[..., :3], box.positions(stride)) + transform[..., 3]

    lower = posed.amin(dim=0)
    # Along the thin axis of a flat pose, such as the canonical one, a share of the box would be less than the distance
    # between two of the voxels, and the cells between them would be empty.
    cell = torch.maximum((posed.amax(dim=0) - lower) / RESOLUTION, stride * (box.upper - box.lower) / box.cells)
    # The 2x2x2 cells nearest to a voxel: what is skinned to between two voxels is then named by one of them.
    corner = torch.arange(8, device=posed.device)
    offsets = torch.stack([corner & 1, corner >> 1 & 1, corner >> 2], dim=-1)
    nearest = ((posed - lower) / cell - 0.5).floor().long()[:, None] + offsets
    rows = _rows(nearest.clamp(0, RESOLUTION - 1))
    marked = torch.zeros(RESOLUTION**3 * (NO_BONE + 1), dtype=torch.bool, device=posed.device)
    marked.index_fill_(0, (rows[..., None] * (NO_BONE + 1) + voxel_bones[:, None]).flatten(), True)
    bits = 1 << torch.arange(NUM_BONES, dtype=torch.int32, device=posed.device)
    masks = (marked.view(-1, NO_BONE + 1)[:, :NUM_BONES] * bits).sum(dim=-1, dtype=torch.int32)
    return BoneCandidates(lower, cell, masks)


def _rows(cells: Tensor) -> Tensor:
    """Row of the table of each cell index [..., 3]."""
    return (cells[..., 0] * RESOLUTION + cells[..., 1]) * RESOLUTION + cells[..., 2]
