"""Symmetry of people: joints lie, and clothes are, on the left as on the right.

Joint errors of a body model are rarely symmetric; people are. Outlines show little of a joint that hardly turns, but
the mirror tells half of its error.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Metres: the person's joints lie so far from the body's along each axis, and so far from where their mirror images are;
# but a body whose sides differ by more than this was not made symmetric, or does not stand so in its T-pose.
_JOINT_SPREAD, _ASYMMETRY, _NOT_SYMMETRIC = 0.002, 0.001, 0.04
PATCH = 0.06  # metres, the edge of a patch


def joint_prior(
    joints: Float[Tensor, "joints 3"], mirror_images: Sequence[int]
) -> tuple[Float[Tensor, "3*joints 3*joints"], Float[Tensor, "3*joints"]]:
    """Return a prior of the person's joints: each lies near the body's, and where the other side's mirror image is.

    Joints along the spine lie in the mirror. Two kinds of joint have no mirror image: the pelvis, since where the root
    turns about only shifts the body, and those that are far from theirs.

    Args:
        joints: The body's in the T-pose, metres.
        mirror_images: Index of each one's counterpart on the other side.

    Returns:
        Inverse covariance of the offsets from the body's joints to the person's, 1/metres², and that times their mean.
    """
    from_mirror, reflection = (
        _from_mirror(joints, joints, mirror_images),
        torch.diag(joints.new_tensor([-1.0, 1.0, 1.0])),
    )
    own, image = torch.arange(len(joints), device=joints.device), torch.tensor(mirror_images, device=joints.device)
    has_image = (from_mirror - from_mirror[image] @ reflection).norm(dim=-1) < _NOT_SYMMETRIC
    has_image[0] = False
    mirror = joints.new_zeros(len(joints), 3, len(joints), 3)
    mirror[own, :, torch.where(has_image, image, own)] = torch.where(
        has_image[:, None, None], reflection, torch.eye(3).to(joints)
    )
    mirror = mirror.view(joints.numel(), joints.numel())
    identity = torch.eye(len(mirror)).to(joints)
    alike, unlike = (identity + mirror) / (2 * _JOINT_SPREAD**2), (identity - mirror) / (2 * _ASYMMETRY**2)
    return alike + unlike, -unlike @ from_mirror.flatten()


def patches(
    rest: Float[Tensor, "vertices 3"],
    weights: Float[Tensor, "vertices joints"],
    joints: Float[Tensor, "joints 3"],
    mirror_images: Sequence[int],
) -> Int[Tensor, "vertices"]:
    """Number of the patch that each vertex belongs to: what lies in the same small cube and mainly on the same bone, on
    either side of the body, whose clothes are as thick on the left as on the right.

    Args:
        rest: The vertices in the T-pose, metres.
        weights: Their skinning weights.
        joints: The body's in the T-pose, metres.
        mirror_images: Index of each one's counterpart on the other side.
    """
    place = _from_mirror(rest, joints, mirror_images)
    place = torch.cat([place[:, :1].abs(), place[:, 1:]], dim=1)
    cell = ((place - place.amin(dim=0)) / PATCH).floor().long()
    bone = weights.argmax(dim=-1)
    bone = torch.minimum(bone, torch.tensor(mirror_images, device=bone.device)[bone])
    return torch.unique(torch.cat([cell, bone[:, None]], dim=1), dim=0, return_inverse=True)[1]


def _from_mirror(
    points: Float[Tensor, "n 3"], joints: Float[Tensor, "joints 3"], mirror_images: Sequence[int]
) -> Float[Tensor, "n 3"]:
    """Points of the T-pose, x from the plane between a body's left and right, which lies amid its joints."""
    middles = (joints + joints[list(mirror_images)])[:, :1] / 2
    return torch.cat([points[:, :1] - middles.median(), points[:, 1:]], dim=1)
