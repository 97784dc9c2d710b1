"""Cuts, loops and transitions: functions from motion to motion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.motion.motion import Motion, UpAxis, place_motion, resample
from instantavatar_ns.motion.travel import travel
from instantavatar_ns.utils.errors import InputError

Root = Literal["follow", "in-place", "as-recorded"]
# Differences between a motion's last frame and its first that are seen as a jump where it repeats.
_JUMP_METERS, _JUMP_DEGREES = 0.05, 12.0


@dataclass(frozen=True)
class MotionOptions:
    """Edits of a motion before the avatar plays it, in the order of the fields."""

    source_fps: float | None = None
    """Frames per second that the motion was recorded with; by default those that its file names, else 30."""
    up: UpAxis | None = None
    """Vertical axis of the motion's file; by default that of its format, if the body stands along it."""
    start_frame: int = 0
    """First frame to play, counted from 0 in the motion's file."""
    end_frame: int | None = None
    """Frame to stop before; by default the motion is played to its end."""
    fps: float | None = None
    """Frames per second to resample the motion to; by default it keeps its own."""
    root: Root = "follow"
    """Way of the root over the floor, as cameras see it. "follow": cameras go along with the person, who sways and
    steps about the middle of the picture. "in-place": the pelvis is held above one spot. "as-recorded": the person
    travels as in the file, and cameras stay. Height and turns are kept in all three."""
    loop: float = 0.0
    """Seconds at the end over which the motion is bent towards its first frame, so that it repeats without a jump; 0
    leaves it as it is."""
    place: Literal["person", "dataset"] = "person"
    """Start the motion where the person stands in the first training frame, or take it as given in the dataset's world,
    as for a motion that was recorded together with the training frames."""
    transition: float = 0.0
    """Seconds to move from the first training pose to the motion's first frame."""


DEFAULT_OPTIONS = MotionOptions()


def prepare_motion(motion: Motion, options: MotionOptions, stand: PoseSequence, up: Float[Tensor, "3"]) -> Motion:
    """Edit a motion and place it where a person stands, with the person's shape.

    Args:
        motion: As its file gives it.
        options: Edits and place.
        stand: The person's first training pose, one frame, in the dataset's world.
        up: The vertical direction in the dataset's world, of unit length.

    Raises:
        InputError: The options do not fit the motion.
    """
    motion = edit_motion(motion, options).with_shape(stand.betas)
    if options.place == "person":
        motion = place_motion(motion, stand, up)
    return lead_in(motion, stand, options.transition)


def edit_motion(motion: Motion, options: MotionOptions) -> Motion:
    """Do the part of `prepare_motion` that does not depend on the avatar; all options are checked.

    Args:
        motion: As its file gives it.
        options: Edits; the place and the transition are left out.

    Raises:
        InputError: The options do not fit the motion.
    """
    _check_seconds("transition", options.transition)
    motion = cut(motion, options.start_frame, options.end_frame)
    if options.fps is not None:
        if not (np.isfinite(options.fps) and options.fps > 0):
            raise InputError("fps", f"expected a positive number, found {options.fps}", "Give frames per second")
        motion = resample(motion, options.fps)
    if options.root == "follow":
        motion = take_out_travel(motion)
    elif options.root == "in-place":
        motion = hold_in_place(motion)
    return loop(motion, options.loop)


def cut(motion: Motion, start_frame: int = 0, end_frame: int | None = None) -> Motion:
    """Select successive frames.

    Args:
        motion: Any motion.
        start_frame: The first one, counted from 0.
        end_frame: The one to stop before; by default the motion's end.

    Raises:
        InputError: There are no such frames.
    """
    end = len(motion) if end_frame is None else end_frame
    if not 0 <= start_frame < end <= len(motion):
        message = f"expected frames of the motion, which has {len(motion)}, found {start_frame} to {end}"
        raise InputError("start_frame, end_frame", message, f"Give a start below the end, both from 0 to {len(motion)}")
    return motion.rows(slice(start_frame, end))


def take_out_travel(motion: Motion) -> Motion:
    """The motion as a camera sees it that goes along: `travel` taken out, height, sway and steps kept.

    The person is alone in the picture, so that a camera that goes along and a person who stays give the same image.
    """
    way = travel(motion.transl.double().numpy(), motion.fps, motion.up.double().numpy())
    return replace(motion, transl=motion.transl - torch.from_numpy(way).to(motion.transl))


def hold_in_place(motion: Motion) -> Motion:
    """The motion with its pelvis above one spot: the translation keeps its height, level with the first frame's."""
    rise = (motion.transl - motion.transl[0]) @ motion.up
    return replace(motion, transl=motion.transl[0] + rise[:, None] * motion.up)


def loop(motion: Motion, seconds: float) -> Motion:
    """The motion with its end bent towards its start, so that it can be repeated without a jump.

    The last frames are turned and moved by a growing share of what lies between the last frame and the first. The last
    one, which then equals the first, is left out: the first follows.

    Args:
        motion: Any motion; one that already ends as it starts only loses its last frame.
        seconds: How long the bend takes; 0 leaves the motion as it is.

    Raises:
        InputError: The motion is not longer than that.
    """
    _check_seconds("loop", seconds)
    count = round(seconds * motion.fps)
    if count == 0:
        return motion
    if count >= len(motion):
        message = f"expected less than the motion's {motion.duration:.3g} s, found {seconds}"
        raise InputError("loop", message, "Give fewer seconds, or a longer motion")
    share = np.zeros(len(motion))
    share[-count:] = _ease(np.arange(1, count + 1) / count)
    rotations = _rotations(motion)
    bend = [(joint[-1].inv() * joint[0]).as_rotvec() for joint in rotations]
    bent = [
        joint * Rotation.from_rotvec(share[:, None] * rotvec) for joint, rotvec in zip(rotations, bend, strict=True)
    ]
    shift = torch.from_numpy(share[:, None]).to(motion.transl) * (motion.transl[0] - motion.transl[-1])
    return cut(_with_rotations(motion, bent, motion.transl + shift), 0, len(motion) - 1)


def lead_in(motion: Motion, stand: PoseSequence, seconds: float) -> Motion:
    """The motion after a smooth movement from a pose to its first frame.

    Args:
        motion: Any motion, in the world of `stand`.
        stand: One frame, the pose to begin with.
        seconds: Duration of the movement; 0 leaves the motion as it is.
    """
    count = round(seconds * motion.fps)
    if count == 0:
        return motion
    share = _ease(np.arange(count) / count)
    starts, ends = _rotations(stand), _rotations(cut(motion, 0, 1))
    turned = [
        start * Rotation.from_rotvec(share[:, None] * (start.inv() * end).as_rotvec())
        for start, end in zip(starts, ends, strict=True)
    ]
    path = stand.transl + torch.from_numpy(share[:, None]).to(stand.transl) * (motion.transl[:1] - stand.transl)
    return _with_rotations(motion, turned, path.to(motion.transl)).concatenate(motion)


def describe_jump(motion: Motion, options: MotionOptions) -> str:
    """Describe the jump where an edited motion repeats, and the option that helps; empty where nothing jumps.

    Args:
        motion: From `edit_motion`.
        options: What it was edited by.
    """
    if options.transition > 0:
        return "It jumps where it repeats, back to the first training pose: leave --transition out"
    level = motion.transl - (motion.transl @ motion.up)[:, None] * motion.up
    way = float((level - level[0]).norm(dim=1).max())
    if options.loop > 0:
        if options.root == "as-recorded" and way > 1.0:
            return f"It slides back by up to {way:.1f} m where it repeats: --root follow leaves the travel out"
        return ""
    meters = float((motion.transl[-1] - motion.transl[0]).norm())
    degrees = max(float(np.degrees((joint[-1].inv() * joint[0]).magnitude())) for joint in _rotations(motion))
    if meters < _JUMP_METERS and degrees < _JUMP_DEGREES:
        return ""
    advice = "--loop 0.5 bends its end towards its start"
    if options.root == "as-recorded":
        advice += ", --root follow leaves the travel out"
    return (
        f"It jumps where it repeats, the last frame is {meters:.2f} m and {degrees:.0f} degrees off the first: {advice}"
    )


def _check_seconds(option: str, seconds: float) -> None:
    if not (np.isfinite(seconds) and seconds >= 0):
        raise InputError(option, f"expected a duration in seconds, found {seconds}", "Give 0 or more seconds")


def _ease(share: np.ndarray) -> np.ndarray:
    """From 0 to 1, slow at both ends."""
    return share**2 * (3 - 2 * share)


def _rotations(poses: PoseSequence) -> list[Rotation]:
    """Each joint's rotations."""
    return [Rotation.from_rotvec(joint) for joint in poses.axis_angles.double().numpy().swapaxes(0, 1)]


def _with_rotations(motion: Motion, joints: list[Rotation], transl: Float[Tensor, "frames 3"]) -> Motion:
    axis_angles = torch.from_numpy(np.stack([joint.as_rotvec() for joint in joints], axis=1))
    return motion.with_pose(axis_angles.to(motion.body_pose), transl)
