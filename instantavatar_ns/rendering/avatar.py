"""The canonical person before it has learnt anything, made from the body alone, and where it is as it learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_vertices
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.deformer.search import SearchSettings
from instantavatar_ns.deformer.skinning_grid import SkinningSettings, canonical_box
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.field.hash_encoding import HashGrid
from instantavatar_ns.field.implementation import Implementation
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.occupancy.posed_grid import PoseUnionGrid, cell_edge, posed_bounds
from instantavatar_ns.rendering.inputs import Avatar
from instantavatar_ns.utils.cuda_graph import AutoCudaGraph

# Metres of clothes and hair that may stand out from the body.
_UNION_MARGIN = 0.2


@dataclass(frozen=True)
class AvatarSizes:
    """Sizes and implementations of what an avatar is made of.

    Attributes:
        skinning_resolution: Voxels of the skinning weights and of the canonical occupancy along x, y and z.
        skinning: How the body's skinning weights get into the voxels.
        hash_levels: Levels of the hash encoding.
        log2_hash_entries: Logarithm of the entries per level.
        hidden_width: Width of the density and colour networks.
        field: What computes the field.
        renderer: What searches roots and fills grids.
        body_reach: Metres around the body that are occupied at first; None for all space.
    """

    skinning_resolution: tuple[int, int, int]
    skinning: SkinningSettings
    hash_levels: int
    log2_hash_entries: int
    hidden_width: int
    field: Implementation
    renderer: Literal["triton", "torch"]
    body_reach: float | None = None


def make_avatar(
    body: BodyModel, betas: Float[Tensor, "10"], bone_transforms: Float[Tensor, "poses joints 4 4"], sizes: AvatarSizes
) -> tuple[Avatar, PoseUnionGrid]:
    """Make the avatar of a body, and the grid in which training samples its rays.

    Args:
        body: The person's body.
        betas: Its shape.
        bone_transforms: Of the training poses, from the canonical pose to root space.
        sizes: Of the parts.
    """
    vertices, weights = canonical_vertices(body, betas), body.skinning_weights
    search = SearchSettings(implementation=sizes.renderer)
    deformer = FastSnarfDeformer(vertices, weights, sizes.skinning_resolution, search, sizes.skinning)
    center, half_edge = canonical_box(vertices)
    grid = HashGrid(sizes.hash_levels, sizes.log2_hash_entries)
    field = CanonicalField(center, half_edge, grid, sizes.hidden_width, sizes.field)
    occupancy = CanonicalOccupancy(deformer.box, sizes.renderer)
    if sizes.body_reach is not None:
        occupancy.start_near(vertices, sizes.body_reach)
    lower, upper = posed_bounds(vertices, weights, bone_transforms)
    union = PoseUnionGrid(lower - _UNION_MARGIN, upper + _UNION_MARGIN, cell_edge(occupancy), sizes.renderer)
    return Avatar(deformer, occupancy, field), union


class OccupancyRefresh:
    """Decides which cells are occupied, in the canonical pose and in any of the training poses.

    Its hundred launches would take the host as long as many steps that are graphs.

    Args:
        union_grid: What is occupied in any training pose.
        training_bones: Returns the bones of all training poses, [poses, joints, 4, 4].
        device: Where all of it lies.
    """

    def __init__(
        self, union_grid: PoseUnionGrid, training_bones: Callable[[], Tensor], device: torch.device | str
    ) -> None:
        self._union_grid, self._training_bones = union_grid, training_bones
        self._graph: AutoCudaGraph[None] = AutoCudaGraph(torch.device(device))

    def refresh(self, avatar: Avatar, has_learned: bool, captures: bool) -> None:
        """Look where the field is dense, and skin that into all training poses.

        Args:
            avatar: The person.
            has_learned: The field says something; before that, its cells stay as they are.
            captures: The kernels can be captured.
        """
        if captures:
            parts = (*avatar.field.parameters(), *avatar.occupancy.buffers())
            places = tuple(part.data_ptr() for part in parts)
            self._graph((has_learned, places), partial(self._refresh, avatar, has_learned))
        else:
            self._refresh(avatar, has_learned)

    def _refresh(self, avatar: Avatar, has_learned: bool) -> None:
        if has_learned:
            avatar.occupancy.refresh(lambda points: avatar.field.density(points)[0])
        self._union_grid.refresh(avatar.occupancy, avatar.deformer, self._training_bones())
