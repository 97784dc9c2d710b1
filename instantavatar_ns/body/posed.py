"""Posed bodies, ready for the renderer: where the root stands, and the bones within root space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_body_pose, canonical_transforms, root_space
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.utils.linalg import rigid_inverse


@dataclass(frozen=True, eq=False)
class PosedBody:
    """One pose of the person, or several in rows.

    Attributes:
        world_to_root: From nerfstudio's world to root space.
        bone_transforms: From the canonical pose to root space.
    """

    world_to_root: Float[Tensor, "*poses 4 4"]
    bone_transforms: Float[Tensor, "*poses joints 4 4"]

    def __len__(self) -> int:
        return len(self.world_to_root)

    def __getitem__(self, rows: int | slice | Int[Tensor, ""]) -> PosedBody:
        """One row, or some; a row may be a number on the device, which blocks no host."""
        if isinstance(rows, Tensor):
            # One row, not a number: the host would have to learn a number that lies on the device.
            row = rows.to(self.world_to_root.device).view(1)
            return PosedBody(self.world_to_root[row][0], self.bone_transforms[row][0])
        return PosedBody(self.world_to_root[rows], self.bone_transforms[rows])

    def to(self, device: torch.device | str) -> PosedBody:
        """Return the same on a device."""
        return PosedBody(self.world_to_root.to(device), self.bone_transforms.to(device))


def pose_body(body: BodyModel, poses: PoseSequence, world_to_dataset: Float[Tensor, "4 4"]) -> PosedBody:
    """Pose a body, one row a frame.

    Args:
        body: The person's body.
        poses: SMPL parameters in the dataset's world.
        world_to_dataset: Rigid transform from nerfstudio's world.
    """
    transforms = body.transforms(poses.betas, poses.global_orient, poses.body_pose, poses.transl)
    root_to_dataset, bone_transforms = root_space(transforms, canonical_transforms(body, poses.betas))
    return PosedBody(rigid_inverse(root_to_dataset) @ world_to_dataset, bone_transforms)


def rest_sequence(poses: PoseSequence, stand: int) -> PoseSequence:
    """The canonical A-pose, standing where the person stands in frame `stand`."""
    here = slice(stand, stand + 1)
    body_pose = canonical_body_pose(poses.transl.device)[None]
    return PoseSequence(poses.betas, poses.global_orient[here], body_pose, poses.transl[here])
