"""The poses a model can show, ready for the renderer: where the root stands, and the bones within root space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from instantavatar_ns.body.canonical import canonical_body_pose, canonical_transforms, root_space
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.utils.linalg import rigid_inverse


@dataclass(frozen=True)
class PosedBody:
    """One pose of the person.

    Attributes:
        world_to_root: From nerfstudio's world to root space.
        bone_transforms: From the canonical pose to root space.
    """

    world_to_root: Float[Tensor, "4 4"]
    bone_transforms: Float[Tensor, "joints 4 4"]


class PoseBank(nn.Module):
    """Transforms of a sequence of poses; buffers that follow from data and body, so no checkpoint holds them.

    Args:
        body: The person's body.
        poses: SMPL parameters in the dataset's world.
        world_to_dataset: Rigid transform from nerfstudio's world.
    """

    world_to_root: Float[Tensor, "poses 4 4"]
    bone_transforms: Float[Tensor, "poses joints 4 4"]

    def __init__(self, body: BodyModel, poses: PoseSequence, world_to_dataset: Float[Tensor, "4 4"]) -> None:
        super().__init__()
        self._poses, self._world_to_dataset = poses, world_to_dataset
        self.register_buffer("world_to_root", torch.empty(len(poses), 4, 4), persistent=False)
        self.register_buffer("bone_transforms", torch.empty(len(poses), body.num_joints, 4, 4), persistent=False)
        self.set_body(body)

    def set_body(self, body: BodyModel) -> None:
        """Show the poses with a body, on the CPU, whose joints may lie elsewhere than the former one's."""
        poses = self._poses
        transforms = body.transforms(poses.betas, poses.global_orient, poses.body_pose, poses.transl)
        root_to_dataset, bone_transforms = root_space(transforms, canonical_transforms(body, poses.betas))
        self.world_to_root.copy_(rigid_inverse(root_to_dataset) @ self._world_to_dataset)
        self.bone_transforms.copy_(bone_transforms)

    def __len__(self) -> int:
        return len(self.world_to_root)

    def __getitem__(self, pose_id: int | Int[Tensor, ""]) -> PosedBody:
        if isinstance(pose_id, Tensor):
            # One row, not a number: to read a number that lies on the device blocks the host.
            row = pose_id.to(self.world_to_root.device).view(1)
            return PosedBody(self.world_to_root[row][0], self.bone_transforms[row][0])
        return PosedBody(self.world_to_root[pose_id], self.bone_transforms[pose_id])


def rest_sequence(body: BodyModel, poses: PoseSequence, stand: int) -> PoseSequence:
    """Return the canonical pose, standing where the person stands in frame `stand` of `poses`.

    Args:
        body: Its rig says which pose the canonical one is.
        poses: Poses of the person.
        stand: Index of the frame.
    """
    here = slice(stand, stand + 1)
    body_pose = canonical_body_pose(body, poses.transl.device)[None]
    return PoseSequence(poses.betas, poses.global_orient[here], body_pose, poses.transl[here])
