"""Alignment of a model's training poses before its first step."""

from __future__ import annotations

import math
from copy import deepcopy
from time import monotonic

import torch
from jaxtyping import UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from instantavatar_ns.correction.alignment import ROUNDS, align_to_silhouettes
from instantavatar_ns.correction.silhouettes import pinhole_silhouettes
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.utils.progress import shown_progress


def align_poses(model: InstantAvatarModel, masks: UInt8[Tensor, "frames height width"], cameras: Cameras) -> None:
    """Correct the training poses, and where the joints are, so that the body fills the person's silhouettes.

    Args:
        model: Its corrections begin with what is found; one whose poses are not corrected, or not aligned, stays as it
            is.
        masks: Opacity of the person in the training frames.
        cameras: Of these frames.
    """
    refinement, subject, device = model.pose_refinement, model.subject, model.device
    if refinement is None or not model.config.align_poses:
        return
    assert cameras.metadata is not None
    rows = cameras.metadata["pose_id"].flatten().to(device)
    start = monotonic()
    CONSOLE.print(f"Aligning the poses of {len(rows)} training frames to their silhouettes in {ROUNDS} rounds")
    with shown_progress("Aligning the poses") as progress:
        body, betas = deepcopy(model.poses.given_body).to(device), subject.poses.betas.to(device)
        alignment = align_to_silhouettes(
            body,
            betas,
            refinement.given_rotations[rows],
            refinement.given_transl[rows],
            subject.train_numbers.float().to(device)[rows],
            refinement.basis[rows],
            pinhole_silhouettes(masks, cameras.to(device), subject.world_to_dataset),
            progress,
        )
    CONSOLE.print(
        f"Aligned the poses in {monotonic() - start:.0f} s; the given rotations seem to be off by "
        f"{math.degrees(alignment.spread):.2g} degrees an axis"
    )
    joints = body.rest(betas)[1]
    if model.config.move_joints:
        joints = joints + alignment.joint_offsets
    remainders = torch.zeros_like(refinement.start)
    remainders[rows] = alignment.remainders
    refinement.start_from(alignment.knots, remainders, alignment.spread, joints)
    model.take_joints()
