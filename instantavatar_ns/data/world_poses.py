"""Poses moved rigidly with the world that they are given in."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence


def move_rigidly(
    poses: PoseSequence,
    body: BodyModel,
    rotations: Float[ndarray, "#frames 3 3"],
    translations: Float[ndarray, "#frames 3"],
) -> PoseSequence:
    """Poses of the body x -> R x + t, where x is the body in the given poses.

    The body turns about its pelvis, which lies at the translation plus an offset that does not depend on the pose.

    Args:
        poses: Any poses.
        body: The person's body, whose pelvis that is.
        rotations: R of each frame.
        translations: t of each frame, metres.
    """
    pelvis = body.rest(poses.betas)[1][0].double().numpy()
    orient = Rotation.from_matrix(rotations) * Rotation.from_rotvec(poses.global_orient.double().numpy())
    places = poses.transl.double().numpy() + pelvis
    transl = np.einsum("...rc,...c->...r", Rotation.from_matrix(rotations).as_matrix(), places) + translations - pelvis
    return PoseSequence(
        poses.betas,
        torch.from_numpy(orient.as_rotvec()).float(),
        poses.body_pose,
        torch.from_numpy(transl).float(),
    )
