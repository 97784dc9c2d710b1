"""Correspondence search in Triton kernels (`instantavatar_ns/kernels/search.py`): launches without synchronisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from instantavatar_ns.deformer.candidates import RESOLUTION, BoneCandidates, mask_dtype, reach, subsampling_stride
from instantavatar_ns.deformer.search import PosedSkinning, RootBuffer, SearchSettings
from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.kernels.launch import cdiv, launch, next_power_of_2
from instantavatar_ns.kernels.posed_skinning import blend_kernel, candidates_kernel
from instantavatar_ns.kernels.search import gradient_kernel, search_kernel
from instantavatar_ns.kernels.usable import interpreting
from instantavatar_ns.utils.errors import InputError

MOST_ROOTS = 4  # of a point; in random poses, one point in ten thousand has as many
# Metres from a root at which another start of its point is given up: a quarter fewer steps, one root in 6,000 lost.
PASSED_ROOT = 5e-3


@dataclass(frozen=True)
class ProgramSize:
    """Work of one program.

    Attributes:
        block: Points, roots or voxels; a power of two.
        warps: Of 32 lanes.
    """

    block: int
    warps: int


# One warp, four lanes a point, so that points wait for no other warp's. Not chosen by timing.
SEARCH = ProgramSize(8, 1)
GRADIENT = ProgramSize(32, 2)
GRADIENT_PROGRAMS = 1024  # a few waves on any GPU; each adds the bones' gradients up before it writes them
BLEND = ProgramSize(64, 4)
CANDIDATES = ProgramSize(128, 4)
_INTERPRETED_BLOCK = 1 << 14  # the interpreter's time goes by operations, not by their size


@torch.no_grad()
def pose_triton(
    bone_transforms: Float[Tensor, "joints 4 4"],
    skinning_weights: Float[Tensor, "voxels joints"],
    main_bones: Int[Tensor, "thin_voxels 2"],
    box: VoxelBox,
    occupied: Bool[Tensor, "x y z"] | None = None,
) -> PosedSkinning:
    """Prepare a pose in three launches: one that sets six numbers, the blend, the table of candidates.

    Args:
        bone_transforms: From the canonical pose to root space.
        skinning_weights: Of the canonical voxels.
        main_bones: See `candidates.main_bones`.
        box: The canonical voxels.
        occupied: Cells of the canonical box, as many as it has voxels: only roots in these are wanted.

    Raises:
        InputError: The tensors are not on a CUDA device.
    """
    _check_device(bone_transforms)
    voxels, cells = len(skinning_weights), RESOLUTION**3
    bones = bone_transforms.float().contiguous()
    bounds = bones.new_full((2, 3), -torch.inf)
    blended = bones.new_empty(voxels, 12)
    to_canonical = torch.empty_like(bones)
    masks = torch.empty(cells, dtype=mask_dtype(len(bones)), device=bones.device)
    lower, cell = bones.new_empty(3), bones.new_empty(3)
    marked = None if occupied is None else occupied.contiguous().view(torch.uint8)
    block = _block(BLEND, voxels)
    programs = cdiv(voxels, block)
    _launch(
        blend_kernel, programs, BLEND.warps,
        skinning_weights, bones, box.lower, box.upper, blended, to_canonical, bounds, masks, marked, voxels,
        **_axes("N", box.resolution), BONES=len(bones), STRIDE=subsampling_stride(box),
        REACH=reach(subsampling_stride(box)), CELLS=cells, SHARE=next_power_of_2(cdiv(cells, programs)), BLOCK=block,
    )  # fmt: skip
    thin_voxels = len(main_bones)
    block = _block(CANDIDATES, thin_voxels)
    _launch(
        candidates_kernel, cdiv(thin_voxels, block), CANDIDATES.warps,
        blended, main_bones, bounds, box.lower, box.upper, lower, cell, masks,
        marked, thin_voxels,
        **_axes("N", box.resolution), BONES=len(bones), STRIDE=subsampling_stride(box),
        REACH=reach(subsampling_stride(box)), POSED=RESOLUTION, BLOCK=block,
    )  # fmt: skip
    return PosedSkinning(bone_transforms, to_canonical, blended, box, BoneCandidates(lower, cell, masks, len(bones)))


def find_roots(
    points: Float[Tensor, "n 3"],
    posed: PosedSkinning,
    skinning_weights: Float[Tensor, "voxels joints"],
    settings: SearchSettings,
    *,
    capacity: int,
    num_points: Int[Tensor, "1"] | None = None,
    occupied: Bool[Tensor, "x y z"] | None = None,
    extra: Float[Tensor, "extra 3"] | None = None,
) -> RootBuffer:
    """Find correspondences as `FastSnarfDeformer.find_correspondences_into` does, at most `MOST_ROOTS` of a point.

    Args:
        points: Posed points in root space, metres.
        posed: The pose.
        skinning_weights: Of the canonical voxels.
        settings: When to stop.
        capacity: Rows of the buffers.
        num_points: Points that are filled, on the device; by default all.
        occupied: Cells that divide the canonical box; roots in others are dropped.
        extra: Canonical points, without gradient, that come first in the buffers, in rows of their own.

    Raises:
        InputError: The tensors are not on a CUDA device.
    """
    _check_device(points)
    tensors = (points.float(), posed.bone_transforms, posed, skinning_weights)
    roots: Any = _ImplicitRoots.apply(*tensors, settings, capacity, num_points, occupied, extra)
    return RootBuffer(*roots)


class _ImplicitRoots(torch.autograd.Function):
    """Roots and the gradient of the implicit function."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        points: Tensor,
        bone_transforms: Tensor,
        posed: PosedSkinning,
        skinning_weights: Tensor,
        settings: SearchSettings,
        capacity: int,
        num_points: Tensor | None,
        occupied: Tensor | None,
        extra: Tensor | None,
    ) -> tuple[Tensor, ...]:
        roots = _search(
            points.contiguous(),
            posed,
            settings,
            capacity=capacity,
            num_points=num_points,
            occupied=occupied,
            extra=extra,
        )
        ctx.save_for_backward(roots.canonical, roots.point, roots.total, posed.blended, skinning_weights)
        ctx.box, ctx.num_points, ctx.first = posed.box, len(points), 0 if extra is None else len(extra)
        ctx.mark_non_differentiable(roots.point, roots.total, roots.starts, roots.counts)
        return roots.canonical, roots.point, roots.total, roots.starts, roots.counts

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, canonical_grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        canonical, point, total, blended, skinning_weights = ctx.saved_tensors
        points_grad = canonical.new_zeros(ctx.num_points, 3)
        num_bones = skinning_weights.shape[1]
        bones_grad = canonical.new_zeros(num_bones, 4, 4)
        capacity = len(canonical)
        block = _block(GRADIENT, capacity)
        _launch(
            gradient_kernel, min(cdiv(capacity, block), GRADIENT_PROGRAMS), GRADIENT.warps,
            canonical, point, total, canonical_grad.contiguous(), blended, skinning_weights, ctx.box.lower,
            ctx.box.upper, points_grad, bones_grad, ctx.first, capacity,
            **_axes("N", ctx.box.resolution), BONES=num_bones, BLOCK=block,
        )  # fmt: skip
        return points_grad, bones_grad, *[None] * 7


def _search(
    points: Tensor,
    posed: PosedSkinning,
    settings: SearchSettings,
    *,
    capacity: int,
    num_points: Tensor | None,
    occupied: Tensor | None,
    extra: Tensor | None,
) -> RootBuffer:
    n, first = len(points), 0 if extra is None else len(extra)
    capacity += first
    integers = {"dtype": torch.int32, "device": points.device}
    roots = RootBuffer(
        points.new_empty(capacity, 3),
        torch.empty(capacity, **integers),
        torch.full((1,), first, **integers),
        torch.empty(n, **integers),
        torch.empty(n, **integers),
    )
    if extra is not None:
        roots.canonical[:first] = extra
    cells = (1, 1, 1) if occupied is None else occupied.shape
    candidates, box = posed.candidates, posed.box
    block = _block(SEARCH, n)
    _launch(
        search_kernel, cdiv(n, block), SEARCH.warps,
        points, num_points, posed.blended, posed.to_canonical, candidates.masks, candidates.lower, candidates.cell,
        box.lower, box.upper, None if occupied is None else occupied.contiguous().view(torch.uint8),
        roots.canonical, roots.point, roots.total, roots.starts, roots.counts, n, capacity, settings.max_steps,
        settings.converged**2, settings.diverged**2, settings.same_root**2, PASSED_ROOT**2,
        fuse=False, **_axes("N", box.resolution), **_axes("O", cells), POSED=RESOLUTION, SLOTS=MOST_ROOTS, BLOCK=block,
    )  # fmt: skip
    return roots


def _launch(kernel: Any, programs: int, warps: int, *arguments: Any, **constants: Any) -> None:
    launch(kernel, (programs,), *arguments, num_warps=warps, num_stages=1, **constants)


def _axes(letter: str, sizes: Sequence[int]) -> dict[str, int]:
    """A kernel's constants for sizes along x, y and z."""
    return {letter + axis: size for axis, size in zip("XYZ", sizes, strict=True)}


def _block(size: ProgramSize, items: int) -> int:
    if interpreting():
        return min(_INTERPRETED_BLOCK, max(16, next_power_of_2(items)))
    return size.block


def _check_device(tensor: Tensor) -> None:
    if not (tensor.is_cuda or interpreting()):
        raise InputError(
            "search implementation 'triton'", f"needs a CUDA GPU, and the avatar is on {tensor.device}", "Use 'torch'"
        )
