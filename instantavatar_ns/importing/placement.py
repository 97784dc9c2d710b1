"""The chosen person's poses with the body in use, in the camera and in the world."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from scipy.spatial.transform import Rotation
from torch import Tensor

from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.body.smpl import NUM_BETAS
from instantavatar_ns.correction.silhouettes import Silhouettes, distance_to_mask
from instantavatar_ns.data.pixel_centers import nerfstudio_principal_points, resize_intrinsics
from instantavatar_ns.data.world_poses import move_rigidly
from instantavatar_ns.importing.result import Skeleton, Track

PELVIS = {"SMPL": (-0.0018, -0.2233, 0.0282), "SMPL-X": (0.0031, -0.3514, 0.0120)}
"""Pelvis of the mean person in the rest pose of each neutral body, metres."""
_LONGEST_SIDE = 480
"""Pixels of the masks to which a shape is fitted."""


def poses_as_given(track: Track) -> PoseSequence:
    """Poses with the tool's own shape, the median of all frames."""
    betas = np.median(track.betas, axis=0)
    return _sequence(betas, track.thetas, track.transl)


def poses_on_body(track: Track, skeleton: Skeleton, body: BodyModel) -> PoseSequence:
    """Poses of a body of mean shape, whose pelvis lies about where that of the tool's body lay.

    Args:
        track: The person, in the camera.
        skeleton: Body model of the tool, "SMPL" or "SMPL-X".
        body: The body in use.

    Returns:
        Poses in the camera, radians and metres.
    """
    betas = torch.zeros(NUM_BETAS)
    pelvis = body.rest(betas)[1][0].numpy()
    return _sequence(betas.numpy(), track.thetas, track.transl + np.array(PELVIS[skeleton]) - pelvis)


def _sequence(betas: ndarray, thetas: ndarray, transl: ndarray) -> PoseSequence:
    values = (betas, thetas[:, :3], thetas[:, 3:], transl)
    return PoseSequence(*(torch.from_numpy(np.ascontiguousarray(value)).float() for value in values))


def in_world(
    poses: PoseSequence, body: BodyModel, camera_to_world: Float[ndarray, "frames 4 4"]
) -> tuple[PoseSequence, Float[ndarray, "frames 4 4"]]:
    """Poses in the world of a moving camera, and its world-to-camera transforms.

    Args:
        poses: In the camera.
        body: Whose pelvis that is.
        camera_to_world: Rigid transforms.
    """
    rotations, positions = camera_to_world[:, :3, :3], camera_to_world[:, :3, 3]
    moved = move_rigidly(poses, body, rotations, positions)
    # Of rotations that are not quite orthonormal the nearest ones are used, as above.
    rigid = camera_to_world.copy()
    rigid[:, :3, :3] = Rotation.from_matrix(rotations).as_matrix()
    return moved, np.linalg.inv(rigid)


def small_silhouettes(
    masks: UInt8[Tensor, "frames height width"], intrinsics: Float[ndarray, "frames 3 3"]
) -> Silhouettes:
    """Silhouettes, small enough to be fast, in cameras at the origin.

    Args:
        masks: 0 to 255.
        intrinsics: Pixel centers as OpenCV counts them.
    """
    height, width = masks.shape[1:]
    scale = min(1.0, _LONGEST_SIDE / max(height, width))
    size = round(width * scale), round(height * scale)
    small = np.stack([cv2.resize(mask, size, interpolation=cv2.INTER_AREA) for mask in masks.numpy()])
    matrices = resize_intrinsics(torch.from_numpy(intrinsics), size[0] / width, size[1] / height)
    return Silhouettes(
        distance_to_mask(torch.from_numpy(small)),
        torch.stack([matrices[:, 0, 0], matrices[:, 1, 1]], dim=1).float(),
        nerfstudio_principal_points(matrices).float(),
        torch.eye(4).expand(len(masks), 4, 4),
    )
