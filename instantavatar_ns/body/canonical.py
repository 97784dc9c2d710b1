"""The canonical pose, and the transforms between it, root space and the world (InstantAvatar section 3.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.utils.linalg import rigid_inverse


def canonical_body_pose(body: BodyModel, device: torch.device | str = "cpu") -> Float[Tensor, "angles"]:
    """Axis-angle rotations of all joints but the root in the canonical pose, an A-pose for SMPL, radians.

    Args:
        body: Its rig says which pose that is.
        device: Of the result.
    """
    body_pose = torch.zeros(body.num_joints, 3, device=device)
    for name, rotation in body.rig.canonical_pose.items():
        body_pose[body.rig.joint_names.index(name)] = torch.tensor(rotation)
    return body_pose[1:].flatten()


def canonical_transforms(body: BodyModel, betas: Float[Tensor, "10"]) -> Float[Tensor, "joints 4 4"]:
    """Skinning transforms from the T-pose to the canonical pose; the root stays where it is.

    The joints are those of the body's file: the canonical space is there before it is known where the person's are.

    Args:
        body: The person's body.
        betas: Shape coefficients.
    """
    still = torch.zeros(1, 3, device=betas.device)
    return _as_given(body).transforms(betas, still, canonical_body_pose(body, betas.device)[None], still)[0]


def canonical_vertices(body: BodyModel, betas: Float[Tensor, "10"]) -> Float[Tensor, "vertices 3"]:
    """Vertices of the canonical body, metres, in root space; joints as in `canonical_transforms`.

    Args:
        body: The person's body.
        betas: Shape coefficients.
    """
    still = torch.zeros(1, 3, device=betas.device)
    return _as_given(body).vertices(betas, still, canonical_body_pose(body, betas.device)[None], still)[0]


def _as_given(body: BodyModel) -> BodyModel:
    return body.with_joints_moved(torch.zeros_like(body.joint_offsets))


def root_space(
    transforms: Float[Tensor, "*batch joints 4 4"], canonical: Float[Tensor, "joints 4 4"]
) -> tuple[Float[Tensor, "*batch 4 4"], Float[Tensor, "*batch joints 4 4"]]:
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
