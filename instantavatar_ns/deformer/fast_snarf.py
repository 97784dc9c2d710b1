"""The deformer of one person: skinning voxels of the canonical body, posed once per frame, inverted per sample."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.deformer.candidates import find_bone_candidates, main_bones
from instantavatar_ns.deformer.search import PosedSkinning, RootBuffer, Roots, SearchSettings
from instantavatar_ns.deformer.search_torch import pack_roots, search_roots_torch, with_extra
from instantavatar_ns.deformer.skinning_grid import BODY_SKINNING, SkinningSettings, build_skinning_grid, skinning_box
from instantavatar_ns.deformer.voxels import (
    corner_weight_slopes,
    corner_weights,
    corners,
    interpolate,
    weighted_rows,
)
from instantavatar_ns.utils.cells import cell_values
from instantavatar_ns.utils.linalg import inverse3, matvec


class FastSnarfDeformer(nn.Module):
    """Canonical correspondences under linear blend skinning (InstantAvatar section 3.2).

    The weights follow from the body model, so they are buffers that no checkpoint holds.

    Args:
        vertices: Canonical body, metres.
        skinning_weights: Its skinning weights.
        resolution: Voxels along x, y, z.
        settings: Ends of the search, and what computes it.
        skinning: Spreads the weights from the body into the voxels.

    Raises:
        InputError: The body has more joints than the search can name.
    """

    skinning_weights: Float[Tensor, "voxels joints"]
    main_bones: Int[Tensor, "thin_voxels 2"]

    def __init__(
        self,
        vertices: Float[Tensor, "vertices 3"],
        skinning_weights: Float[Tensor, "vertices joints"],
        resolution: tuple[int, int, int] = (128, 128, 32),
        settings: SearchSettings | None = None,
        skinning: SkinningSettings = BODY_SKINNING,
    ) -> None:
        super().__init__()
        self.settings = settings or SearchSettings()
        self.box = skinning_box(vertices, resolution)
        weights = build_skinning_grid(vertices, skinning_weights, self.box, skinning)
        self.register_buffer("skinning_weights", weights, persistent=False)
        self.register_buffer("main_bones", main_bones(weights, self.box), persistent=False)

    @property
    def num_bones(self) -> int:
        """Bones of the body, one a joint."""
        return self.skinning_weights.shape[1]

    def pose(
        self, bone_transforms: Float[Tensor, "joints 4 4"], occupied: Bool[Tensor, "x y z"] | None = None
    ) -> PosedSkinning:
        """Blend one pose's bone transforms per voxel, and find out from which bones a search is worth a start.

        Args:
            bone_transforms: From the canonical pose to root space.
            occupied: Cells of the canonical box, as many as it has voxels: only roots in these will be asked for, and
                bones that lead elsewhere are left out.

        Raises:
            ValueError: There are more or fewer cells than voxels.
        """
        if occupied is not None and occupied.shape != self.box.resolution:
            raise ValueError(f"expected one cell a voxel, {self.box.resolution}, found {tuple(occupied.shape)}")
        if self.settings.implementation == "triton":
            from instantavatar_ns.deformer.search_triton import pose_triton

            return pose_triton(bone_transforms, self.skinning_weights, self.main_bones, self.box, occupied)
        with torch.no_grad():
            # Not `inv`, which reads on the host whether a matrix was singular.
            to_canonical = torch.linalg.inv_ex(bone_transforms).inverse.transpose(1, 2).contiguous()
            blended = self.skinning_weights @ bone_transforms[:, :3].reshape(-1, 12)
            candidates = find_bone_candidates(self.main_bones, len(bone_transforms), blended, self.box, occupied)
        return PosedSkinning(bone_transforms, to_canonical, blended, self.box, candidates)

    def skin(
        self, canonical: Float[Tensor, "n 3"], bone_transforms: Float[Tensor, "*batch joints 4 4"]
    ) -> Float[Tensor, "*batch n 3"]:
        """Skin canonical points forward, in one or several poses; differentiable with respect to the transforms.

        Args:
            canonical: Canonical points, metres.
            bone_transforms: From the canonical pose to root space.
        """
        weights = interpolate(self.skinning_weights, canonical, self.box)
        return skinned(canonical, weights, bone_transforms)

    def forward(self, points: Float[Tensor, "n 3"], posed: PosedSkinning) -> Roots:
        """Find correspondences, in torch; differentiable with respect to the points and the bone transforms.

        The gradient is that of the implicit function (InstantAvatar eq. 9): with d(x) the skinning of x, a root x* of
        d(x) = x_d moves by J^-1 (change of x_d - change of d), J being the derivative of d with respect to x at x*.

        Args:
            points: Posed points in root space, metres.
            posed: The pose.
        """
        roots = search_roots_torch(points.detach(), posed, self.settings)
        if not torch.is_grad_enabled() or not (posed.bone_transforms.requires_grad or points.requires_grad):
            return roots
        canonical = roots.canonical
        mismatch = points[roots.point] - self.skin(canonical, posed.bone_transforms)
        inverse = inverse3(skinning_jacobian(canonical, posed))
        moved = canonical + matvec(inverse, mismatch - mismatch.detach())
        return Roots(moved, roots.point)

    def find_correspondences_into(
        self,
        points: Float[Tensor, "n 3"],
        posed: PosedSkinning,
        capacity: int,
        num_points: Int[Tensor, "1"] | None = None,
        occupied: Bool[Tensor, "x y z"] | None = None,
        extra: Float[Tensor, "extra 3"] | None = None,
    ) -> RootBuffer:
        """Canonical correspondences in buffers of fixed size; differentiable as those of `forward`.

        Args:
            points: Posed points in root space, metres.
            posed: The pose.
            capacity: Rows of the buffers, besides those of `extra`.
            num_points: Points that are filled, on the device; by default all.
            occupied: Cells that divide the canonical box; roots in others are dropped.
            extra: Canonical points, without gradient, that come first in the buffers: the field is evaluated there too.

        Raises:
            InputError: The implementation cannot run on the device.
        """
        if self.settings.implementation == "triton":
            from instantavatar_ns.deformer.search_triton import find_roots

            return find_roots(
                points,
                posed,
                self.skinning_weights,
                self.settings,
                capacity=capacity,
                num_points=num_points,
                occupied=occupied,
                extra=extra,
            )
        if num_points is not None:
            counts = torch.arange(len(points), device=points.device) < num_points
            points = torch.where(counts[:, None], points, torch.nan)  # has no candidates
        roots = self(points, posed)
        if occupied is not None:
            size = torch.tensor(occupied.shape, device=points.device)
            marked, inside = cell_values(occupied, roots.canonical.detach(), self.box.lower, self.box.upper, size)
            keep = marked & inside
            roots = Roots(roots.canonical[keep], roots.point[keep])
        packed = pack_roots(roots, len(points), capacity)
        return packed if extra is None else with_extra(packed, extra)


@torch.no_grad()
def skinning_jacobian(canonical: Float[Tensor, "n 3"], posed: PosedSkinning) -> Float[Tensor, "n 3 3"]:
    """Derivative of the skinned position with respect to the canonical one, the change of the weights included.

    Args:
        canonical: Canonical points, metres.
        posed: The pose.
    """
    rows, fraction = corners(canonical, posed.box)
    rotation = weighted_rows(posed.blended, rows, corner_weights(fraction)).view(-1, 3, 4)[..., :3]
    slopes = corner_weight_slopes(fraction, posed.box)
    homogeneous = torch.cat([canonical, torch.ones_like(canonical[:, :1])], dim=-1)
    columns = [
        (weighted_rows(posed.blended, rows, slopes[:, axis].contiguous()).view(-1, 3, 4) @ homogeneous[..., None])[
            ..., 0
        ]
        for axis in range(3)
    ]
    return rotation + torch.stack(columns, dim=-1)
