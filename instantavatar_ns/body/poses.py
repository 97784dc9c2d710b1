"""Poses of a subject's frames, as every data format yields them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from instantavatar_ns.body.kinematics import joint_angles
from instantavatar_ns.body.model import BodyModel

T = TypeVar("T", bound="PoseSequence")


@dataclass(frozen=True, eq=False)
class PoseSequence:
    """Parameters of a body model in a sequence of frames of one person, in the dataset's world.

    Attributes:
        betas: Shape coefficients, shared by all frames.
        global_orient: Axis-angle rotation of the root, radians.
        body_pose: Axis-angle rotations of the other joints relative to their parents, radians.
        transl: Translation, metres.
    """

    betas: Float[Tensor, "10"]
    global_orient: Float[Tensor, "frames 3"]
    body_pose: Float[Tensor, "frames angles"]
    transl: Float[Tensor, "frames 3"]

    def __len__(self) -> int:
        return len(self.transl)

    @property
    def axis_angles(self) -> Float[Tensor, "frames joints 3"]:
        """Axis-angle rotations of all joints relative to their parents, the root first, radians."""
        return joint_angles(self.global_orient, self.body_pose)

    def with_pose(self: T, axis_angles: Float[Tensor, "frames joints 3"], transl: Float[Tensor, "frames 3"]) -> T:
        """Replace the frames.

        Args:
            axis_angles: See the property of that name.
            transl: Translation, metres.
        """
        return replace(self, global_orient=axis_angles[:, 0], body_pose=axis_angles[:, 1:].flatten(1), transl=transl)

    def with_shape(self: T, betas: Float[Tensor, "10"]) -> T:
        """The same poses of a person with these shape coefficients."""
        return replace(self, betas=betas)

    def concatenate(self: T, other: PoseSequence) -> T:
        """This sequence followed by the frames of `other`; all else stays this one's."""
        return replace(
            self,
            global_orient=torch.cat([self.global_orient, other.global_orient]),
            body_pose=torch.cat([self.body_pose, other.body_pose]),
            transl=torch.cat([self.transl, other.transl]),
        )

    def rows(self: T, rows: slice | list[int] | Int[Tensor, "chosen"]) -> T:
        """Some of the frames, in any order."""
        return replace(
            self, global_orient=self.global_orient[rows], body_pose=self.body_pose[rows], transl=self.transl[rows]
        )


def posed_joints(body: BodyModel, poses: PoseSequence) -> Float[Tensor, "frames joints 3"]:
    """Joints of a body in some poses, metres, in the world of the poses.

    Args:
        body: The body; `poses` tell its shape.
        poses: Its poses.
    """
    transforms = body.transforms(poses.betas, poses.global_orient, poses.body_pose, poses.transl)
    return (transforms[..., :3, :3] @ body.rest(poses.betas)[1][..., None])[..., 0] + transforms[..., :3, 3]
