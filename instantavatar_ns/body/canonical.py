"""The canonical pose, and the transforms between it, root space and the world (InstantAvatar section 3.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.utils.linalg import rigid_inverse

# body_pose index: radians. An A-pose: hips opened, arms lowered.
_A_POSE = {2: 0.2, 5: -0.2, 47: -0.8, 50: 0.8}


def canonical_body_pose(device: torch.device | str = "cpu") -> Float[Tensor, "69"]:
    """Axis-angle rotations of the canonical A-pose, radians."""
    body_pose = torch.zeros(69, device=device)
    for index, angle in _A_POSE.items():
        body_pose[index] = angle
    return body_pose


def canonical_transforms(body: BodyModel, betas: Float[Tensor, "10"]) -> Float[Tensor, "24 4 4"]:
    """Skinning transforms from the T-pose to the canonical pose; the root stays where it is.

    The joints are those of the body's file: the canonical space is there before it is known where the person's are.
    """
    still = torch.zeros(1, 3, device=betas.device)
    return _as_given(body).transforms(betas, still, canonical_body_pose(betas.device)[None], still)[0]


def canonical_vertices(body: BodyModel, betas: Float[Tensor, "10"]) -> Float[Tensor, "vertices 3"]:
    """Vertices of the canonical body, metres, in root space."""
    still = torch.zeros(1, 3, device=betas.device)
    return _as_given(body).vertices(betas, still, canonical_body_pose(betas.device)[None], still)[0]


def _as_given(body: BodyModel) -> BodyModel:
    return body.with_joints_moved(torch.zeros_like(body.joint_offsets))


def root_space(
    transforms: Float[Tensor, "*batch 24 4 4"], canonical: Float[Tensor, "24 4 4"]
) -> tuple[Float[Tensor, "*batch 4 4"], Float[Tensor, "*batch 24 4 4"]]:
    """Split skinning transforms into the root's motion and the pose within root space.

    Args:
        transforms: From the T-pose to the world.
        canonical: From the T-pose to the canonical pose.

    Returns:
        `root_to_world` = A_0, and `bone_transforms` = A_0^-1 A_j canonical_j^-1, from the canonical pose to root space.
    """
    root_to_world = transforms[..., 0, :, :]
    inverse = rigid_inverse(root_to_world)[..., None, :, :]
    return root_to_world, inverse @ transforms @ rigid_inverse(canonical)
