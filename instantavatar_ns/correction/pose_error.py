"""How far estimated joint rotations are from the truth, with and without what shape and poses can drift together.

A training sees images only: turn a bone's canonical shape by D about its joint, and every frame's rotation of it by
D^-1, and little changes. The error after alignment leaves out one such rotation per joint, constant over the frames;
the drift is its angle.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.body.model import rotation_matrices
from instantavatar_ns.body.poses import PoseSequence


class PoseError(NamedTuple):
    """Mean angles over frames and joints, degrees.

    Attributes:
        mean_deg: Between estimated and true rotations of the joints relative to their parents.
        aligned_deg: The same after the best constant rotation of each joint, in the joint's own axes.
        drift_deg: Angle of these constant rotations.
    """

    mean_deg: float
    aligned_deg: float
    drift_deg: float


def joint_rotations(poses: PoseSequence) -> Float[Tensor, "frames joints 3 3"]:
    """Rotations of the joints relative to their parents."""
    return rotation_matrices(poses.axis_angles)


def pose_error(estimated: Float[Tensor, "frames joints 3 3"], true: Float[Tensor, "frames joints 3 3"]) -> PoseError:
    """Compare rotations of the same frames."""
    estimated, true = estimated.double(), true.double()
    drift = _nearest_rotation((estimated.mT @ true).sum(dim=0))
    return PoseError(
        *(
            float(_angle(rotations).mean().rad2deg())
            for rotations in (estimated.mT @ true, drift.mT @ estimated.mT @ true, drift)
        )
    )


def _angle(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Angle of rotations, radians; exact near zero, where the trace is not."""
    skew = rotations - rotations.mT
    sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1).norm(dim=-1)
    return torch.atan2(sine, rotations.diagonal(dim1=-2, dim2=-1).sum(dim=-1) - 1)


def _nearest_rotation(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation nearest to each matrix; of a sum of rotations, their chordal mean."""
    left, _, right = torch.linalg.svd(matrices)
    sign = torch.ones(*matrices.shape[:-2], 3, dtype=matrices.dtype)
    sign[..., 2] = torch.linalg.det(left @ right)
    return (left * sign[..., None, :]) @ right
