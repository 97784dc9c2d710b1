"""Correspondence search by one Triton kernel: no host, nothing but the roots written to memory."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor
from triton import knobs

from instantavatar_ns.deformer.candidates import RESOLUTION
from instantavatar_ns.deformer.search import PosedSkinning, RootBuffer, SearchSettings
from instantavatar_ns.kernels.launch import launch
from instantavatar_ns.kernels.search import implicit_gradient_kernel, search_kernel

# A warp's lanes, which wait for the slowest among them. The interpreter takes as long for a program of any size.
_LANES = 256 if knobs.runtime.interpret else 32
_GRADIENT_LANES = 32
_GRADIENT_PROGRAMS = 528  # four for each multiprocessor of an H100: each adds to the bones' gradient once


@torch.no_grad()
def search_roots_triton(
    points: Float[Tensor, "n 3"],
    posed: PosedSkinning,
    settings: SearchSettings,
    capacity: int,
    num_points: Int32[Tensor, "1"] | None = None,
    occupied: Bool[Tensor, "x y z"] | None = None,
) -> RootBuffer:
    """The roots of `search.search_roots`, at most four a point, in a buffer; points are placed in it in any order.

    Args:
        points: Posed points in root space, metres.
        posed: The pose.
        settings: When to stop.
        capacity: Roots that the buffer holds; of those that do not fit, only their number is kept.
        num_points: How many of the points count, on the device; by default, and at most, all.
        occupied: Cells of the canonical box; roots in others are left out.
    """
    device, box = points.device, posed.box
    if num_points is None:
        num_points = torch.full((1,), len(points), dtype=torch.int32, device=device)
    canonical = torch.zeros((capacity, 3), device=device)
    point_of_root = torch.zeros(capacity, dtype=torch.int32, device=device)
    first, number = torch.zeros((2, len(points)), dtype=torch.int32, device=device)
    count = torch.zeros(1, dtype=torch.int32, device=device)
    launch(
        search_kernel,
        (-(-len(points) // _LANES),),
        points.contiguous(),
        num_points,
        posed.candidates.bits,
        torch.cat([posed.candidates.lower, posed.candidates.cell]),
        posed.starts,
        posed.blended,
        torch.cat([box.lower, box.upper]),
        count if occupied is None else occupied.contiguous().view(torch.uint8),
        canonical,
        point_of_root,
        first,
        number,
        count,
        len(points),
        capacity,
        *box.resolution,
        settings.converged,
        settings.diverged,
        settings.same_root,
        MAX_STEPS=settings.max_steps,
        RESOLUTION=RESOLUTION,
        HAS_OCCUPIED=occupied is not None,
        LANES=_LANES,
        num_warps=1,
    )
    return RootBuffer(canonical, point_of_root, first, number, count)


def follow_roots(
    roots: RootBuffer,
    points: Float[Tensor, "n 3"],
    posed: PosedSkinning,
    skinning_weights: Float[Tensor, "voxels 24"],
) -> Float[Tensor, "capacity 3"]:
    """The roots' positions, differentiable to the posed points and to `posed.bone_transforms`.

    The gradient is that of `FastSnarfDeformer.forward`, the implicit function's.
    """
    return _ImplicitFunction.apply(points, posed.bone_transforms, roots, posed, skinning_weights)  # pyright: ignore


class _ImplicitFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points: Tensor, bone_transforms: Tensor, roots: RootBuffer, posed: PosedSkinning, weights: Tensor):
        ctx.roots, ctx.posed, ctx.weights = roots, posed, weights
        ctx.num_points = len(points)
        return roots.canonical.clone()

    @staticmethod
    def backward(ctx, grad_canonical: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        roots, posed, weights = ctx.roots, ctx.posed, ctx.weights
        grad_points = grad_canonical.new_zeros(ctx.num_points, 3)
        grad_bones = grad_canonical.new_zeros(weights.shape[1], 4, 4)
        upper = grad_canonical.new_zeros(weights.shape[1], 3, 4)
        launch(
            implicit_gradient_kernel,
            (min(_GRADIENT_PROGRAMS, -(-len(roots.canonical) // _GRADIENT_LANES)),),
            roots.canonical,
            roots.point,
            roots.count,
            grad_canonical.contiguous(),
            posed.blended,
            weights,
            torch.cat([posed.box.lower, posed.box.upper]),
            grad_points,
            upper,
            len(roots.canonical),
            *posed.box.resolution,
            BONES=weights.shape[1],
            BONES_PADDED=32,
            LANES=_GRADIENT_LANES,
        )
        grad_bones[:, :3] = upper
        return grad_points, grad_bones, None, None, None
