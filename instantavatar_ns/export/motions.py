"""Motions of the exported person, placed as the model places its own."""

from __future__ import annotations

from dataclasses import dataclass

from instantavatar_ns.body.pose_bank import PoseBank, PosedBody
from instantavatar_ns.data.frames import PoseSequence
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.motion import Motion, place_motion


@dataclass(frozen=True)
class NamedMotion:
    """A motion of the person, in the dataset's world.

    Attributes:
        name: What players call it.
        poses: One per frame.
        fps: Frames per second.
    """

    name: str
    poses: PoseSequence
    fps: float


def place(name: str, motion: Motion, model: InstantAvatarModel, in_place: bool) -> NamedMotion:
    """Give a motion the person's shape and place.

    Args:
        name: What players shall call it.
        motion: As its file gives it.
        model: The person.
        in_place: Start where the person stands in the first training frame; else leave it in the dataset's world.
    """
    metadata = model.kwargs["metadata"]
    poses: PoseSequence = metadata["poses"]
    if in_place:
        first, up = model.train_pose_ids[0], metadata["world_to_dataset"][:3, 2]
        motion = place_motion(motion, poses.global_orient[first], poses.transl[first], up)
    sequence = PoseSequence(poses.betas, motion.global_orient, motion.body_pose, motion.transl)
    return NamedMotion(name, sequence, motion.fps)


def posed_body(motion: NamedMotion, frame: int, model: InstantAvatarModel) -> PosedBody:
    """One frame of a motion."""
    return PoseBank(model.body, motion.poses, model.kwargs["metadata"]["world_to_dataset"])[frame]
