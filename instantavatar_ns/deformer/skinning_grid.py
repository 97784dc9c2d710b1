"""Skinning weights on a voxel grid around the canonical body (Fast-SNARF section 3.2; fixed during training).

Fast-SNARF's grid is smoother than the body: 30 neighbours and 30 passes spread the weights over some 3 cm more, and
what lies around a joint follows a limb that turns by too little. Avatars then look right in the poses they were trained
in, and in others their arms are too far from the chest and their legs too far apart (docs/ablations.md). The settings
here keep to the body's weights, and sharpen them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from instantavatar_ns.deformer.voxels import VoxelBox

SMOOTHING_KEEP = 0.7
NEAREST, FARTHEST = 1e-4, 1.0  # metres between which a vertex's distance counts
_LEAF = 32  # vertices that are compared one by one: SciPy's 10 take half as long again for the same result


@dataclass(frozen=True)
class SkinningSettings:
    """Spread of a body's skinning weights into the space around it."""

    neighbors: int = 8
    """Vertices that a voxel takes its weights from."""
    smoothing_passes: int = 8
    """Passes that pull each voxel towards its neighbours; without any, weights jump where two parts of the body face
    each other."""
    sharpness: float = 1.75
    """Power of the body's weights before they are spread, 1 for its own. Bodies are skinned smoothly, people bend at
    their joints."""


BODY_SKINNING = SkinningSettings()


def canonical_box(vertices: Float[Tensor, "vertices 3"]) -> tuple[Float[Tensor, "3"], Float[Tensor, ""]]:
    """Centre and half edge, metres, of the cube around the canonical body: 1.2 times its largest half extent."""
    lower, upper = vertices.amin(dim=0), vertices.amax(dim=0)
    return (lower + upper) / 2, 1.2 * ((upper - lower) / 2).amax()


def skinning_box(vertices: Float[Tensor, "vertices 3"], resolution: tuple[int, int, int]) -> VoxelBox:
    """The canonical cube flattened to a quarter along z, the axis along which a standing body is thin.

    Args:
        vertices: Canonical body, metres.
        resolution: Voxels along x, y, z.
    """
    center, half = canonical_box(vertices)
    extent = half * torch.tensor([1.0, 1.0, 0.25], device=vertices.device)
    return VoxelBox(center - extent, center + extent, resolution)


def build_skinning_grid(
    vertices: Float[Tensor, "vertices 3"],
    skinning_weights: Float[Tensor, "vertices joints"],
    box: VoxelBox,
    settings: SkinningSettings = BODY_SKINNING,
) -> Float[Tensor, "voxels joints"]:
    """Spread the body's skinning weights into the space around it.

    Each voxel takes the inverse-distance mean of its nearest vertices' weights; passes then pull every inner voxel
    towards the mean of its six neighbours.

    Args:
        vertices: Canonical body, metres.
        skinning_weights: Its weights.
        box: Voxels to fill.
        settings: Neighbours, smoothing and sharpness.
    """
    skinning_weights = skinning_weights**settings.sharpness
    skinning_weights = skinning_weights / skinning_weights.sum(dim=-1, keepdim=True)
    positions, count = box.positions().cpu().numpy(), min(settings.neighbors, len(vertices))
    distances, nearest = KDTree(vertices.cpu().numpy(), _LEAF).query(positions, k=count, workers=-1)
    distances, nearest = distances.reshape(-1, count), nearest.reshape(-1, count)
    closeness = 1.0 / torch.from_numpy(distances).float().clamp(NEAREST, FARTHEST).to(vertices.device)
    closeness = closeness / closeness.sum(dim=-1, keepdim=True)
    nearest = torch.from_numpy(nearest).to(vertices.device)
    weights = F.embedding_bag(nearest, skinning_weights, per_sample_weights=closeness, mode="sum")
    return _smooth(weights.view(*box.resolution, -1), settings.smoothing_passes).flatten(0, 2)


def _smooth(weights: Float[Tensor, "x y z joints"], passes: int) -> Float[Tensor, "x y z joints"]:
    """Laplacian smoothing of the inner voxels."""
    weights = weights.clone()
    inner = weights[1:-1, 1:-1, 1:-1]
    for _ in range(passes):
        mean = weights[2:, 1:-1, 1:-1] + weights[:-2, 1:-1, 1:-1]
        mean += weights[1:-1, 2:, 1:-1]
        mean += weights[1:-1, :-2, 1:-1]
        mean += weights[1:-1, 1:-1, 2:]
        mean += weights[1:-1, 1:-1, :-2]
        mean /= 6
        inner.lerp_(mean, 1 - SMOOTHING_KEEP)
    return weights / weights.sum(dim=-1, keepdim=True)
