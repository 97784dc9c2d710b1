"""Interface of the correspondence search: its settings, input and output.

`FastSnarfDeformer` is the only entry. `search_torch` is the reference and serves every device; `search_triton` serves
CUDA, fills buffers of fixed size and never blocks the host. `SearchSettings.implementation` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from instantavatar_ns.deformer.candidates import BoneCandidates
from instantavatar_ns.deformer.voxels import VoxelBox


@dataclass(frozen=True)
class PosedSkinning:
    """Linear blend skinning of one pose, ready to be inverted.

    Attributes:
        bone_transforms: From the canonical pose to root space.
        to_canonical: Their inverses, transposed.
        blended: The upper three rows of the transforms, blended per voxel.
        box: The canonical voxels.
        candidates: Bones that are worth a start, by posed cell; its box is the posed box.
    """

    bone_transforms: Float[Tensor, "joints 4 4"]
    to_canonical: Float[Tensor, "joints 4 4"]
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
    """Canonical correspondences in buffers of fixed size. The roots of one point follow one another.

    Extra points may take the first rows; they belong to no posed point.

    Attributes:
        canonical: Canonical positions, metres.
        point: Index of the posed point that each belongs to.
        total: Roots that were found, and extra points. More than the capacity is an overflow: those beyond it were
            dropped. Rows from `total` on hold nothing.
        starts: Row of each point's first root.
        counts: Roots of each point that are in the buffers.
    """

    canonical: Float[Tensor, "capacity 3"]
    point: Int[Tensor, "capacity"]
    total: Int[Tensor, "1"]
    starts: Int[Tensor, "n"]
    counts: Int[Tensor, "n"]


@dataclass(frozen=True)
class SearchSettings:
    """Ends of Broyden's iteration (Fast-SNARF section 3.3), and what computes it.

    The release gives up at 0.1 m; starts that begin farther off converge often enough in bent joints to be worth it.
    """

    max_steps: int = 10
    converged: float = 1e-5  # metres between the skinned root and the point
    diverged: float = 0.3  # metres
    same_root: float = 1e-4  # metres between two roots that count as one
    implementation: Literal["torch", "triton"] = "torch"
