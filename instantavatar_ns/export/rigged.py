"""The avatar as formats with a skeleton keep it, and where it stands in a scene of its own.

That scene has y up and its floor at y = 0; the person stands over the origin and faces +z.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy import ndarray
from scipy import sparse
from scipy.spatial.transform import Rotation

from instantavatar_ns.export.gltf import SkinnedMesh
from instantavatar_ns.export.skeleton import Clip, Skeleton, make_clip
from instantavatar_ns.motion.motion import Motion, place_motion

_FRAMES_AT_A_TIME = 64  # whose coordinates are in memory


@dataclass(frozen=True)
class RiggedAvatar:
    """A skinned mesh with its texture and skeleton.

    Attributes:
        mesh: In the pose in which `skeleton` binds it.
        texture_png: Its texture, a PNG file.
        skeleton: The joints.
        joint_names: The body model's names of the joints.
    """

    mesh: SkinnedMesh
    texture_png: bytes
    skeleton: Skeleton
    joint_names: tuple[str, ...]

    @property
    def rest(self) -> Clip:
        """The pose in which the mesh is bound, standing, as a clip of one frame."""
        axes = np.linalg.inv(self.skeleton.inverse_bind)[:, :3, :3]
        turns = axes.copy()
        turns[1:] = axes[self.skeleton.parents[1:]].transpose(0, 2, 1) @ axes[1:]
        rotations = Rotation.from_matrix(turns).as_quat()[None].astype(np.float32)
        pose = Clip("rest", np.zeros(1, np.float32), rotations, self.skeleton.offsets[:1].astype(np.float32))
        return standing(self.mesh, self.skeleton, pose)

    def clip(self, motion: Motion) -> Clip:
        """A motion of the person as a clip in the person's own scene.

        Args:
            motion: In any world.
        """
        first = motion.rows(slice(1))
        ahead = first.with_pose(torch.zeros_like(first.axis_angles), torch.zeros_like(first.transl))
        facing = place_motion(motion, ahead, torch.tensor([0.0, 1.0, 0.0]))
        return standing(self.mesh, self.skeleton, make_clip(motion.name, facing, motion.fps, self.skeleton))


def standing(mesh: SkinnedMesh, skeleton: Skeleton, clip: Clip) -> Clip:
    """Shift a clip so that its root starts over the origin, and its lowest point touches the floor.

    Args:
        mesh: The person's mesh.
        skeleton: The joints that bind it.
        clip: Poses, y up.
    """
    lowest = float(bounds(mesh, skinning_matrices(skeleton, clip))[0][:, 1].min())
    start = np.array([clip.root[0, 0], lowest, clip.root[0, 2]], np.float32)
    return replace(clip, root=clip.root - start)


def joint_transforms(skeleton: Skeleton, clip: Clip) -> Float[ndarray, "frames joints 4 4"]:
    """Transforms from the joints' axes to the clip's world.

    Args:
        skeleton: The joints.
        clip: Their rotations.
    """
    frames, joints = clip.rotations.shape[:2]
    rotations = Rotation.from_quat(clip.rotations.reshape(-1, 4)).as_matrix().reshape(frames, joints, 3, 3)
    transforms = np.tile(np.eye(4), (frames, joints, 1, 1))
    transforms[..., :3, :3], transforms[..., :3, 3] = rotations, skeleton.offsets
    transforms[:, 0, :3, 3] = clip.root
    for joint, parent in enumerate(skeleton.parents):
        if parent >= 0:
            transforms[:, joint] = transforms[:, parent] @ transforms[:, joint]
    return transforms


def skinning_matrices(skeleton: Skeleton, clip: Clip) -> Float[ndarray, "frames joints 4 4"]:
    """Transforms of linear blend skinning, from the pose in which the mesh is bound to those of a clip.

    Args:
        skeleton: The joints.
        clip: Their rotations.
    """
    return joint_transforms(skeleton, clip) @ skeleton.inverse_bind


def bounds(
    mesh: SkinnedMesh, matrices: Float[ndarray, "frames joints 4 4"]
) -> tuple[Float32[ndarray, "frames 3"], Float32[ndarray, "frames 3"]]:
    """Least and largest coordinates of the mesh in each frame, metres, by linear blend skinning.

    Args:
        mesh: The mesh.
        matrices: From `skinning_matrices`.
    """
    vertices, joints = len(mesh.positions), matrices.shape[1]
    ends = np.concatenate([mesh.positions, np.ones((vertices, 1), np.float32)], axis=1).astype(np.float64)
    rows = np.arange(vertices).repeat(mesh.joints.shape[1] * 4)
    columns = 4 * mesh.joints[:, :, None].astype(np.int64) + np.arange(4)
    values = mesh.weights[:, :, None] * ends[:, None]
    # Coordinates are linear in the matrices: one sparse product for many frames.
    blended = sparse.csr_matrix((values.reshape(-1), (rows, columns.reshape(-1))), shape=(vertices, 4 * joints))
    least, largest = [], []
    for start in range(0, len(matrices), _FRAMES_AT_A_TIME):
        some = matrices[start : start + _FRAMES_AT_A_TIME, :, :3]
        places = blended @ some.transpose(1, 3, 0, 2).reshape(4 * joints, -1)
        least.append(places.min(axis=0).reshape(-1, 3))
        largest.append(places.max(axis=0).reshape(-1, 3))
    return np.concatenate(least).astype(np.float32), np.concatenate(largest).astype(np.float32)
