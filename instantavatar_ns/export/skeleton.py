"""The avatar's skeleton and skin as glTF has them: joints in a hierarchy, four bones a vertex, motions as clips.

SMPL's skinning transform of joint j is A_j = G_j T(-J_j), with G_j the product of the joints' local transforms from the
root to j, and J_j the joint in the T-pose. From the canonical to another pose a point moves by A_j A_j(canonical)^-1 =
G_j G_j(canonical)^-1: glTF's joint matrix with G_j(canonical)^-1 as inverse bind matrix. So the nodes' local transforms
are SMPL's rotations at SMPL's offsets, and a motion's rotations are used as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from numpy import ndarray
from scipy.spatial.transform import Rotation
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_transforms
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence

BONES_PER_VERTEX = 4


@dataclass(frozen=True)
class Skeleton:
    """Joints of the avatar.

    Attributes:
        names: One per joint.
        parents: Index of each joint's parent, -1 for the root.
        offsets: From each joint's parent, in the parent's axes; the root's is its place in the T-pose. Metres.
        inverse_bind: From the canonical pose to each joint's axes.
    """

    names: list[str]
    parents: Int[ndarray, "joints"]
    offsets: Float[ndarray, "joints 3"]
    inverse_bind: Float[ndarray, "joints 4 4"]


@dataclass(frozen=True)
class Clip:
    """Local transforms of the joints over time.

    Attributes:
        name: Shown by players.
        times: Seconds, ascending from 0.
        rotations: Quaternions (x, y, z, w) relative to the parents; the root's is relative to the dataset's world.
        root: Position of the root in the dataset's world, metres.
    """

    name: str
    times: Float32[ndarray, "frames"]
    rotations: Float32[ndarray, "frames joints 4"]
    root: Float32[ndarray, "frames 3"]


def make_skeleton(body: BodyModel, betas: Float[Tensor, "10"]) -> Skeleton:
    """Skeleton of a person, bound in the canonical pose.

    Args:
        body: The person's body.
        betas: Shape coefficients.
    """
    joints = body.rest(betas)[1].double().cpu()
    parents = body.parents.cpu().numpy().astype(np.int64)
    offsets = joints.numpy().copy()
    offsets[1:] -= joints.numpy()[parents[1:]]
    to_joint = torch.eye(4, dtype=torch.float64).repeat(body.num_joints, 1, 1)
    to_joint[:, :3, 3] = joints
    bind = canonical_transforms(body, betas).double().cpu() @ to_joint
    inverse_bind = torch.linalg.inv(bind).numpy()
    inverse_bind[:, 3] = [0.0, 0.0, 0.0, 1.0]
    return Skeleton(list(body.rig.joint_names), parents, offsets, inverse_bind)


def make_clip(name: str, poses: PoseSequence, fps: float, skeleton: Skeleton) -> Clip:
    """A sequence of poses as local transforms; each quaternion has the sign nearest to the one before.

    Args:
        name: Shown by players.
        poses: One a frame.
        fps: Frames per second.
        skeleton: The person's skeleton.
    """
    vectors = poses.axis_angles.double().cpu().numpy()
    rotations = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_quat().reshape(*vectors.shape[:2], 4)
    flips = np.where((rotations[1:] * rotations[:-1]).sum(axis=-1) < 0, -1.0, 1.0)
    rotations[1:] *= np.cumprod(flips, axis=0)[..., None]
    root = skeleton.offsets[0] + poses.transl.double().cpu().numpy()
    times = np.arange(len(root)) / fps
    return Clip(name, times.astype(np.float32), rotations.astype(np.float32), root.astype(np.float32))


def moved(clip: Clip, transform: Float[ndarray, "4 4"]) -> Clip:
    """A clip in another world.

    Args:
        clip: Any clip.
        transform: Rigid transform to the other world.
    """
    rotations = clip.rotations.copy()
    # A constant factor leaves each quaternion as near to the one before as it was.
    rotations[:, 0] = (Rotation.from_matrix(transform[:3, :3]) * Rotation.from_quat(clip.rotations[:, 0])).as_quat()
    root = clip.root @ transform[:3, :3].T + transform[:3, 3]
    return replace(clip, rotations=rotations, root=root.astype(np.float32))


def strongest_bones(
    weights: Float[ndarray, "vertices joints"],
) -> tuple[UInt8[ndarray, "vertices 4"], Float32[ndarray, "vertices 4"]]:
    """The four bones that move each vertex most, and their weights, which sum to 1; bones of no weight are 0."""
    joints = np.argsort(-weights, axis=1, kind="stable")[:, :BONES_PER_VERTEX]
    chosen = np.take_along_axis(weights, joints, axis=1).astype(np.float64).clip(0.0)
    chosen = (chosen / chosen.sum(axis=1, keepdims=True)).astype(np.float32)
    return np.where(chosen > 0, joints, 0).astype(np.uint8), chosen
