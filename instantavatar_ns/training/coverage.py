"""What the training views see of a model's person, found before its first step."""

from __future__ import annotations

import torch
from nerfstudio.cameras.cameras import Cameras

from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.unseen.coverage import Views, view_coverage


@torch.no_grad()
def observe_coverage(model: InstantAvatarModel, cameras: Cameras) -> None:
    """Let a model's prior of unseen parts know what the training frames show of the body, in their aligned poses.

    Args:
        model: One without that prior, or whose checkpoint holds the coverage, stays as it is.
        cameras: Of the training frames, on the model's device.
    """
    prior = model.unseen
    if prior is None or prior.has_observed:
        return
    assert cameras.metadata is not None
    bodies = [model.poses.frame(row) for row in cameras.metadata["pose_id"].flatten().tolist()]
    last_row = cameras.camera_to_worlds.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(bodies), 1, 4)
    camera_to_world = torch.cat([cameras.camera_to_worlds, last_row], dim=1)
    views = Views(
        torch.stack([body.world_to_root for body in bodies]) @ camera_to_world,
        focal=torch.cat([cameras.fx, cameras.fy], dim=1),
        center=torch.cat([cameras.cx, cameras.cy], dim=1),
        width=int(cameras.width[0]),
        height=int(cameras.height[0]),
    )
    weights = model.poses.body.skinning_weights.to(prior.vertices)
    bones = torch.stack([body.bone_transforms for body in bodies])
    prior.observe(view_coverage(prior.vertices, prior.normals, weights, bones, views))
