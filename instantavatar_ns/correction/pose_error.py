"""Error of estimated joint rotations, with and without what shape and poses can drift together.

A training sees images only: turn a bone's canonical shape by D about its joint, and every frame's rotation of it by
D^-1, and little changes. The error after alignment leaves out one such rotation per joint, constant over the frames;
the drift is its angle.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation
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


def joint_rotations(poses: PoseSequence) -> Float[Tensor, "frames 24 3 3"]:
    """Rotations of the joints relative to their parents."""
    return rotation_matrices(poses.axis_angles)


def pose_error(estimated: Float[Tensor, "frames joints 3 3"], true: Float[Tensor, "frames joints 3 3"]) -> PoseError:
    """Compare rotations of the same frames.

    Args:
        estimated: Estimated rotations of the joints relative to their parents.
        true: The true ones.
    """
    differences = estimated.double().mT @ true.double()
    of_joints = [Rotation.from_matrix(joint.cpu().numpy()) for joint in differences.unbind(dim=1)]
    drifts = [joint.mean() for joint in of_joints]
    return PoseError(
        _mean_degrees(of_joints),
        _mean_degrees([drift.inv() * joint for drift, joint in zip(drifts, of_joints, strict=True)]),
        _mean_degrees(drifts),
    )


def _mean_degrees(rotations: list[Rotation]) -> float:
    return float(np.degrees(np.mean([rotation.magnitude() for rotation in rotations])))
