"""Which bones are worth a start of the search in which part of posed space.

Fast-SNARF starts from 13 bones everywhere. Nearly all of those starts are hopeless: a root lies where one or two bones
dominate. The voxels of the canonical body know which; skinned forward and sorted into a coarse posed grid they name,
per cell, the few bones that can explain a point there. That leaves 2-3 starts a point, and finds more roots than the 13
do (docs/architecture.md), since it may name any of the 24 bones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from instantavatar_ns.body.body_model import NUM_JOINTS
from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.linalg import matvec

RESOLUTION = 40  # cells along each axis of the posed box; about 5 cm, a few voxels
VOXELS_PER_AXIS = 64  # of the canonical grid that are skinned
BONES_PER_VOXEL = 2
LEAST_WEIGHT = 0.1  # below it a bone does not explain a voxel


@dataclass(frozen=True)
class BoneCandidates:
    """A coarse grid over the posed box.

    Attributes:
        lower: Corner of the posed box, metres, root space.
        cell: Edges of a cell, metres.
        bits: The candidates of a cell, bone j as bit j; the row after the last is the outside, without candidates.
    """

    lower: Float[Tensor, "3"]
    cell: Float[Tensor, "3"]
    bits: Int32[Tensor, "cells"]

    @property
    def posed_box(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
        """Corners of the box that holds all skinned voxels, metres, root space."""
        return self.lower, self.lower + RESOLUTION * self.cell

    def of(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, "n bones"]:
        """Candidates of each point; none outside the posed box."""
        cell = ((points - self.lower) / self.cell).floor()
        inside = ((cell >= 0) & (cell < RESOLUTION)).all(dim=-1)
        row = _rows(cell.nan_to_num(0.0).clamp(0, RESOLUTION - 1).long())
        bits = self.bits[torch.where(inside, row, len(self.bits) - 1)]
        return (bits[:, None] >> torch.arange(NUM_JOINTS, device=bits.device) & 1).bool()


def find_bone_candidates(
    skinning_weights: Float[Tensor, "voxels 24"], blended: Float[Tensor, "voxels 12"], box: VoxelBox
) -> BoneCandidates:
    """Skin every few voxels forward and note their main bones in the posed cells around them.

    Args:
        skinning_weights: Per canonical voxel.
        blended: The pose's transforms, blended per canonical voxel.
        box: The canonical voxels.
    """
    stride = max(1, max(box.resolution) // VOXELS_PER_AXIS)
    thin = (slice(None, None, stride),) * 3
    transform = blended.view(*box.resolution, 3, 4)[thin].reshape(-1, 3, 4)
    posed = matvec(transform[..., :3], box.positions(stride)) + transform[..., 3]
    weight, bone = skinning_weights.view(*box.resolution, -1)[thin].reshape(len(posed), -1).topk(BONES_PER_VOXEL)

    lower = posed.amin(dim=0)
    # Along the thin axis of a flat pose, such as the canonical one, a share of the box would be less than the distance
    # between two of the voxels, and the cells between them would be empty.
    cell = torch.maximum((posed.amax(dim=0) - lower) / RESOLUTION, stride * (box.upper - box.lower) / box.cells)
    # The 2x2x2 cells nearest to a voxel: what is skinned to between two voxels is then named by one of them.
    corner = torch.arange(8, device=posed.device)
    offsets = torch.stack([corner & 1, corner >> 1 & 1, corner >> 2], dim=-1)
    nearest = ((posed - lower) / cell - 0.5).floor().long()[:, None] + offsets
    rows = _rows(nearest.clamp(0, RESOLUTION - 1))
    rows = torch.where(weight[:, None] >= LEAST_WEIGHT, rows[..., None], RESOLUTION**3)
    table = torch.zeros((RESOLUTION**3 + 1) * NUM_JOINTS, dtype=torch.bool, device=posed.device)
    table.index_fill_(0, (rows * NUM_JOINTS + bone[:, None]).flatten(), True)
    values = 1 << torch.arange(NUM_JOINTS, dtype=torch.int32, device=posed.device)
    bits = (table.view(-1, NUM_JOINTS) * values).sum(dim=-1, dtype=torch.int32)
    bits[-1] = 0
    return BoneCandidates(lower, cell, bits)


def _rows(cells: Tensor) -> Tensor:
    """Row of the table of each cell index [..., 3]."""
    return (cells[..., 0] * RESOLUTION + cells[..., 1]) * RESOLUTION + cells[..., 2]
