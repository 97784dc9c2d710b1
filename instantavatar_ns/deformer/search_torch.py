"""Correspondence search in plain torch: the reference for kernels, and the path of CPUs.

Broyden's method runs from one start per candidate bone, on the starts that are still undecided: most end after three or
four steps, and dropping them at once is worth more than the host synchronisation that each compaction costs on a GPU.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from instantavatar_ns.deformer.search import PosedSkinning, RootBuffer, Roots, SearchSettings
from instantavatar_ns.deformer.voxels import interpolate
from instantavatar_ns.utils.linalg import matvec


@torch.no_grad()
def search_roots_torch(points: Float[Tensor, "n 3"], posed: PosedSkinning, settings: SearchSettings) -> Roots:
    """Find every canonical point that is skinned to each posed point.

    Args:
        points: Posed points in root space, metres.
        posed: The pose.
        settings: When to stop.

    Returns:
        The roots, without gradient; see `FastSnarfDeformer` for the gradient with respect to the pose.
    """
    point, bone = posed.candidates.of(points).nonzero(as_tuple=True)
    to_canonical = posed.to_canonical.transpose(1, 2)[bone, :3]
    x = matvec(to_canonical[..., :3], points[point]) + to_canonical[..., 3]
    residual, rotation = _skin(x, points[point], posed)
    inverse_jacobian = rotation.transpose(1, 2)

    found_x, found_point = [], []
    for step in range(settings.max_steps + 1):
        error = residual.norm(dim=-1)
        done = (error < settings.converged).nonzero()[:, 0]
        found_x.append(x[done])
        found_point.append(point[done])
        going = ((error >= settings.converged) & (error < settings.diverged)).nonzero()[:, 0]
        if step == settings.max_steps or not len(going):
            break
        x, point, residual, inverse_jacobian = x[going], point[going], residual[going], inverse_jacobian[going]
        move = -matvec(inverse_jacobian, residual)
        x = x + move
        new_residual, _ = _skin(x, points[point], posed)
        inverse_jacobian = _broyden_update(inverse_jacobian, move, new_residual - residual)
        residual = new_residual

    x, point = torch.cat(found_x), torch.cat(found_point)
    inside = posed.box.contains(x)
    point, order = point[inside].sort(stable=True)
    x = x[inside][order]
    distinct = _first_of_each_root(x, point, settings.same_root)
    return Roots(x[distinct], point[distinct])


def _skin(
    canonical: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"], posed: PosedSkinning
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3 3"]]:
    """Skinned points less their targets, metres, and the linear part of the blended transform there."""
    transform = interpolate(posed.blended, canonical, posed.box).view(-1, 3, 4)
    rotation = transform[..., :3]
    return matvec(rotation, canonical) + transform[..., 3] - target, rotation


def _broyden_update(
    inverse_jacobian: Float[Tensor, "n 3 3"], move: Float[Tensor, "n 3"], change: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3 3"]:
    """Broyden's good update of the inverse Jacobian after a move that changed the residual by `change`."""
    row = matvec(inverse_jacobian.transpose(1, 2), move)
    scale = (row * change).sum(dim=-1, keepdim=True)
    scale = torch.where(scale.abs() < 1e-12, torch.full_like(scale, 1e-12), scale)
    column = (move - matvec(inverse_jacobian, change)) / scale
    return inverse_jacobian + column[:, :, None] * row[:, None, :]


def _first_of_each_root(roots: Float[Tensor, "n 3"], point: Int[Tensor, "n"], same_root: float) -> Bool[Tensor, "n"]:
    """Mark the roots that no earlier root of the same point equals; roots of a point follow one another."""
    distinct = torch.ones_like(point, dtype=torch.bool)
    for gap in range(1, len(roots)):
        same_point = point[gap:] == point[:-gap]
        if not same_point.any():
            break
        near = (roots[gap:] - roots[:-gap]).norm(dim=-1) < same_root
        distinct[gap:] &= ~(same_point & near)
    return distinct


def pack_roots(roots: Roots, num_points: int, capacity: int) -> RootBuffer:
    """Put roots into buffers of fixed size; differentiable with respect to the canonical positions.

    Args:
        roots: All roots.
        num_points: Points that were searched.
        capacity: Rows of the buffers.
    """
    kept = min(len(roots.point), capacity)
    canonical = torch.nn.functional.pad(roots.canonical[:kept], (0, 0, 0, capacity - kept))
    point = torch.nn.functional.pad(roots.point[:kept].int(), (0, capacity - kept))
    found = torch.bincount(roots.point, minlength=num_points)
    starts = found.cumsum(dim=0) - found
    counts = found.minimum((capacity - starts).clamp_min(0))
    total = torch.full((1,), len(roots.point), dtype=torch.int32, device=point.device)
    return RootBuffer(canonical, point, total, starts.int(), counts.int())


def with_extra(roots: RootBuffer, extra: Float[Tensor, "extra 3"]) -> RootBuffer:
    """Put canonical points in front of roots.

    Args:
        roots: The roots.
        extra: The points; they belong to no posed point.
    """
    canonical, point = torch.cat([extra, roots.canonical]), torch.nn.functional.pad(roots.point, (len(extra), 0))
    return RootBuffer(canonical, point, roots.total + len(extra), roots.starts + len(extra), roots.counts)
