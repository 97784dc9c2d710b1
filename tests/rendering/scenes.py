"""Scenes that the tests of the renderers render."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.occupancy.posed_grid import pose_cells
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Scene(NamedTuple):
    """A person in one pose, and rays at it."""

    rays: Rays
    bones: Tensor
    world_to_root: Tensor
    avatar: Avatar
    pose: RenderPose


def posed(avatar: Avatar, bones: Tensor, world_to_root: Tensor) -> RenderPose:
    cells = pose_cells(avatar.occupancy, avatar.deformer, bones.detach())
    return RenderPose(PosedBody(world_to_root, bones), avatar.deformer.pose(bones, avatar.occupancy.binaries[0]), cells)
