"""Motions of the exported person, placed as the model places its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from instantavatar_ns.body.bank import PoseBank, PosedBody
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.editing import MotionOptions
from instantavatar_ns.motion.run_motion import load_run_motion


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


def place(path: Path, model: InstantAvatarModel, options: MotionOptions) -> NamedMotion:
    """Load a motion, named like its file, and give it the person's shape and place, as the model does to its own.

    Args:
        path: As of `load_motion`.
        model: The person.
        options: Edits, and the place where the motion starts.

    Raises:
        InputError: See `load_run_motion`.
    """
    metadata, first = model.kwargs["metadata"], model.train_pose_ids[0]
    stand = metadata["poses"].rows(slice(first, first + 1))
    return NamedMotion(path.stem, *load_run_motion(path, options, stand, metadata["world_to_dataset"][:3, 2]))


def closed(motion: NamedMotion) -> NamedMotion:
    """A motion that loops, followed by its first frame: players do not interpolate from the last key to the first."""
    return replace(motion, poses=motion.poses.concatenate(motion.poses.rows(slice(0, 1))))


def posed_body(motion: NamedMotion, frame: int, model: InstantAvatarModel) -> PosedBody:
    """One frame of a motion.

    Args:
        motion: The motion.
        frame: Index of the frame.
        model: The person.
    """
    return PoseBank(model.body, motion.poses, model.kwargs["metadata"]["world_to_dataset"])[frame]
