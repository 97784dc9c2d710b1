"""Skinning weights on a voxel grid around the canonical body (Fast-SNARF section 3.2; fixed during training)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from instantavatar_ns.deformer.voxels import VoxelBox

NEIGHBOURS = 30
SMOOTHING_PASSES = 30
SMOOTHING_KEEP = 0.7
NEAREST, FARTHEST = 1e-4, 1.0  # metres between which a vertex's distance counts


def canonical_box(vertices: Float[Tensor, "vertices 3"]) -> tuple[Float[Tensor, "3"], Float[Tensor, ""]]:
    """Centre and half edge, metres, of the cube around the canonical body: 1.2 times its largest half extent."""
    lower, upper = vertices.amin(dim=0), vertices.amax(dim=0)
    return (lower + upper) / 2, 1.2 * ((upper - lower) / 2).amax()


def skinning_box(vertices: Float[Tensor, "vertices 3"], resolution: tuple[int, int, int]) -> VoxelBox:
    """The canonical cube flattened to a quarter along z, the axis along which a standing body is thin."""
    centre, half = canonical_box(vertices)
    extent = half * torch.tensor([1.0, 1.0, 0.25], device=vertices.device)
    return VoxelBox(centre - extent, centre + extent, resolution)


def build_skinning_grid(
    vertices: Float[Tensor, "vertices 3"], skinning_weights: Float[Tensor, "vertices 24"], box: VoxelBox
) -> Float[Tensor, "voxels 24"]:
    """Diffuse the body's skinning weights into the space around it.

    Each voxel takes the inverse-distance mean of its 30 nearest vertices' weights; 30 passes then pull every inner
    voxel towards the mean of its six neighbours.

    Args:
        vertices: Canonical body, metres.
        skinning_weights: Its weights.
        box: Voxels to fill.
    """
    distances, nearest = KDTree(vertices.cpu().numpy()).query(box.positions().cpu().numpy(), k=NEIGHBOURS, workers=-1)
    closeness = 1.0 / torch.from_numpy(distances).float().clamp(NEAREST, FARTHEST).to(vertices.device)
    closeness = closeness / closeness.sum(dim=-1, keepdim=True)
    nearest = torch.from_numpy(nearest).to(vertices.device)
    weights = F.embedding_bag(nearest, skinning_weights, per_sample_weights=closeness, mode="sum")
    return _smooth(weights.view(*box.resolution, -1)).flatten(0, 2)


def _smooth(weights: Float[Tensor, "x y z 24"]) -> Float[Tensor, "x y z 24"]:
    """Laplacian smoothing of the inner voxels."""
    weights = weights.clone()
    inner = weights[1:-1, 1:-1, 1:-1]
    for _ in range(SMOOTHING_PASSES):
        mean = weights[2:, 1:-1, 1:-1] + weights[:-2, 1:-1, 1:-1]
        mean += weights[1:-1, 2:, 1:-1]
        mean += weights[1:-1, :-2, 1:-1]
        mean += weights[1:-1, 1:-1, 2:]
        mean += weights[1:-1, 1:-1, :-2]
        mean /= 6
        inner.lerp_(mean, 1 - SMOOTHING_KEEP)
    return weights / weights.sum(dim=-1, keepdim=True)
