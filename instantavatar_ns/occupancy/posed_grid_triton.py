"""Posed grids on a GPU in a handful of launches: nothing is read by the host."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from instantavatar_ns.deformer.candidates import NUM_BONES
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.kernels.launch import launch
from instantavatar_ns.kernels.posed_grid import mark_kernel, skin_kernel, spread_kernel, union_kernel
from instantavatar_ns.kernels.usable import interpreting
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.occupancy.cells import OccupiedCells

# Cells of the grid of one pose along each axis. Canonical cells divide 1.2 times the spread arms into 128, so that 64
# posed ones of twice their edge would hold a body that is as tall as its arms are long; this holds raised arms and a
# leap with the usual edge.
POSE_RESOLUTION = 96

_POSES = 16  # skinned into at a time; the least that a matrix product takes
# Chosen by the compiler's report for compute capability 9.0: warp-group products and no spilt register in the union.
_UNION_BLOCK = 64
_SKIN_BLOCK = 32
_BLOCK = 1024
_INTERPRETED = 64  # times as large: the interpreter's time goes by operations, not by their size


@torch.no_grad()
def union_triton(
    canonical: CanonicalOccupancy,
    deformer: FastSnarfDeformer,
    bone_transforms: Float[Tensor, "poses 24 4 4"],
    aabb: Float[Tensor, "6"],
    resolution: tuple[int, int, int],
) -> Bool[Tensor, "x y z"]:
    """Skin the occupied canonical cells into every pose: `cells.mark_nearest` of all centres, in three launches."""
    x, y, z = resolution
    marks = torch.zeros((x + 1, y + 1, z + 1), dtype=torch.uint8, device=aabb.device)
    block = _block(_UNION_BLOCK)
    launch(
        union_kernel,
        (_programs(canonical.binaries.numel(), block),),
        *_skinned(canonical, deformer),
        bone_transforms.float().contiguous(),
        aabb,
        marks,
        len(bone_transforms),
        **_canonical_size(canonical),
        PX=x,
        PY=y,
        PZ=z,
        BONES=NUM_BONES,
        POSES=_POSES,
        BLOCK=block,
    )
    return _spread(marks, resolution)


@torch.no_grad()
def pose_cells_triton(
    canonical: CanonicalOccupancy,
    deformer: FastSnarfDeformer,
    bone_transforms: Float[Tensor, "24 4 4"],
    spacing: int,
) -> OccupiedCells:
    """Occupied cells of one pose in a grid of `POSE_RESOLUTION`, in four launches.

    Args:
        canonical: Occupied cells; as many as the deformer has voxels.
        deformer: Skins their centres.
        bone_transforms: The pose, from the canonical one to root space.
        spacing: Edge of a cell in canonical cells. Cells are larger where the grid would not hold the pose otherwise.
    """
    device, cells = bone_transforms.device, canonical.binaries.numel()
    marks = torch.empty((POSE_RESOLUTION + 1,) * 3, dtype=torch.uint8, device=device)
    posed = torch.empty((3, cells), device=device)
    bounds = torch.full((6,), -torch.inf, device=device)
    aabb, filled = torch.empty((2, 6), device=device)
    block = _block(_SKIN_BLOCK)
    programs = _programs(cells, block)
    launch(
        skin_kernel,
        (programs,),
        *_skinned(canonical, deformer),
        bone_transforms.float().contiguous(),
        posed,
        bounds,
        marks,
        **_canonical_size(canonical),
        BONES=NUM_BONES,
        MARKS=marks.numel(),
        SHARE=1 << (_programs(marks.numel(), programs) - 1).bit_length(),
        BLOCK=block,
    )
    block = _block(_BLOCK)
    launch(
        mark_kernel,
        (_programs(cells, block),),
        _flags(canonical),
        posed,
        bounds,
        canonical.aabbs[0],
        aabb,
        filled,
        marks,
        **_canonical_size(canonical),
        SIZE=POSE_RESOLUTION,
        SPACING=spacing,
        BLOCK=block,
    )
    return OccupiedCells(aabb, _spread(marks, (POSE_RESOLUTION, POSE_RESOLUTION, POSE_RESOLUTION)), filled)


def _spread(marks: Tensor, resolution: tuple[int, int, int]) -> Bool[Tensor, "x y z"]:
    binaries = torch.empty(resolution, dtype=torch.uint8, device=marks.device)
    block = _block(_BLOCK)
    launch(spread_kernel, (_programs(binaries.numel(), block),), marks, binaries, *resolution, BLOCK=block)
    return binaries.view(torch.bool)


def _skinned(canonical: CanonicalOccupancy, deformer: FastSnarfDeformer) -> tuple[Tensor, Tensor, Tensor]:
    return _flags(canonical), deformer.skinning_weights, canonical.aabbs[0]


def _flags(canonical: CanonicalOccupancy) -> Tensor:
    return canonical.binaries[0].view(torch.uint8)


def _canonical_size(canonical: CanonicalOccupancy) -> dict[str, int]:
    return dict(zip(("NX", "NY", "NZ"), canonical.resolution_xyz, strict=True))


def _block(size: int) -> int:
    return _INTERPRETED * size if interpreting() else size


def _programs(items: int, share: int) -> int:
    return -(-items // share)
