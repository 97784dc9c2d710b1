"""Interface of the correspondence search: what it takes, what it gives, and which implementation serves a device.

`search_roots` is the only entry. An implementation is a function of the same signature; `_search_torch` is the
reference.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int, Int32
from torch import Tensor

from instantavatar_ns.deformer.candidates import BoneCandidates
from instantavatar_ns.deformer.voxels import VoxelBox


@dataclass(frozen=True)
class PosedSkinning:
    """Linear blend skinning of one pose, ready to be inverted.

    Attributes:
        bone_transforms: From the canonical pose to root space.
        starts: Back from root space, the upper three rows: where each bone takes a posed point.
        blended: The upper three rows of the transforms, blended per voxel.
        box: The canonical voxels.
        candidates: Which bones are worth a start where; its box is the posed box.
    """

    bone_transforms: Float[Tensor, "24 4 4"]
    starts: Float[Tensor, "24 3 4"]
    blended: Float[Tensor, "voxels 12"]
    box: VoxelBox
    candidates: BoneCandidates


@dataclass(frozen=True)
class Roots:
    """Canonical correspondences, packed: every distinct root of every point, in the order of the points.

    Attributes:
        canonical: Canonical positions, metres.
        point: Index of the posed point that each belongs to, ascending.
    """

    canonical: Float[Tensor, "roots 3"]
    point: Int[Tensor, "roots"]


@dataclass(frozen=True)
class RootBuffer:
    """Canonical correspondences in buffers of a fixed size, so that no host needs to know how many there are.

    Attributes:
        canonical: Canonical positions, metres.
        point: Index of the posed point that each belongs to.
        first: Row of each point's first root. The roots of one point lie together.
        number: How many roots of each point are in the buffer.
        count: How many roots there are; what exceeds the buffer is not in it.
    """

    canonical: Float[Tensor, "capacity 3"]
    point: Int32[Tensor, "capacity"]
    first: Int32[Tensor, "points"]
    number: Int32[Tensor, "points"]
    count: Int32[Tensor, "1"]


@dataclass(frozen=True)
class SearchSettings:
    """When Broyden's iteration ends (Fast-SNARF section 3.3).

    The release gives up at 0.1 m; starts that begin farther off converge often enough in bent joints to be worth it.
    """

    max_steps: int = 10
    converged: float = 1e-5  # metres between the skinned root and the point
    diverged: float = 0.3  # metres
    same_root: float = 1e-4  # metres between two roots that count as one


def search_roots(points: Float[Tensor, "n 3"], posed: PosedSkinning, settings: SearchSettings) -> Roots:
    """Find every canonical point that is skinned to each posed point.

    Args:
        points: Posed points in root space, metres.
        posed: The pose.
        settings: When to stop.

    Returns:
        The roots, without gradient; see `FastSnarfDeformer` for the gradient to the pose.
    """
    from instantavatar_ns.deformer._search_torch import search_roots_torch

    return search_roots_torch(points, posed, settings)
