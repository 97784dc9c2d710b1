"""The vertical axis of a motion's world.

Formats prescribe one, but files in them are turned: AMASS's and SMPL-X's exporters know y up, camera-space estimates y
down, Blender z up by a turn of the root. A body that never stands along the prescribed axis either lies, as in
push-ups, or is in a file that was turned. How it would rise, sink or roll tells them apart where anything does.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.model import load_body_model
from instantavatar_ns.body.poses import PoseSequence, posed_joints
from instantavatar_ns.utils.notices import notice

AXES = {sign + axis: (-1.0 if sign else 1.0) * np.eye(3)["xyz".index(axis)] for axis in "xyz" for sign in ("", "-")}
"""Vertical directions by the name that `--up` takes."""
_STANDS = np.cos(np.radians(45))
_STANDING_SHARE = 0.25
"""Share of the frames in which a body that stands at times does so."""
_FLOOR = (-0.03, 0.25)
"""Heights of the lowest joint of a body on the floor, metres."""
_RISE = 0.6
"""Metres by which the lowest joint of a lying body does not rise."""
_ROLL = math.radians(45)
"""Angle by which a lying body does not roll."""
_FRAMES = 300


def choose_up(path: Path, poses: PoseSequence, up: tuple[float, float, float] | None) -> Float[ndarray, "3"]:
    """The vertical direction in a motion's world, of unit length.

    That of the format, else y, if the body stands along it at times. A body that is upside down all the time stands in
    a file that was turned. One that is level all the time lies, unless along the axis that points to its head it stands
    on the plane through the origin, or lying it would rise, sink or roll.

    Args:
        path: For notices only, which say what was assumed.
        poses: Any motion.
        up: The vertical axis that the file's format prescribes, None where it prescribes none.
    """
    given = np.array(up or (0.0, 1.0, 0.0))
    heads = Rotation.from_rotvec(poses.global_orient.double().numpy()).apply([0.0, 1.0, 0.0])
    mean = heads.mean(axis=0)
    axis = int(np.abs(mean).argmax())
    nearest = (float(np.sign(mean[axis])) or 1.0) * np.eye(3)[axis]
    if (nearest == given).all():
        return given
    lean = heads @ given
    known = "the file names no vertical axis"
    if up is not None:
        known = f"the file's format or rest pose has {axis_name(given)} up"
    if (lean > _STANDS).mean() >= _STANDING_SHARE:
        if up is None:
            notice(path, f"Took y as the vertical axis, along which the body stands at times; {known} (--up).")
        return given
    if (nearest == -given).all() or _stands(poses, nearest, given):
        notice(path, f"Took {axis_name(nearest)} as the vertical axis, along which the body stands; {known} (--up).")
        return nearest
    when = "most of the time" if (lean > _STANDS).any() else "all the time"
    advice = f"If it should stand, give --up={axis_name(nearest)}."
    notice(path, f"With {axis_name(given)} up, the body lies {when}; {known}. {advice}")
    return given


def axis_name(axis: Float[ndarray, "3"]) -> str:
    """The name of a signed axis, as in `AXES`."""
    return next(name for name, direction in AXES.items() if (direction == axis).all())


def _stands(poses: PoseSequence, nearest: Float[ndarray, "3"], given: Float[ndarray, "3"]) -> bool:
    """Find out if a body that is level to `given` all the time stands along `nearest`."""
    joints = _joints(poses)
    lowest = [(joints @ axis).min(axis=1) for axis in (nearest, given)]
    rise_standing, rise_lying = (float(np.ptp(np.percentile(heights, [5, 95]))) for heights in lowest)
    if rise_lying > max(_RISE, rise_standing):
        return True
    on_floor_standing, on_floor_lying = (_FLOOR[0] < float(np.median(heights)) < _FLOOR[1] for heights in lowest)
    if on_floor_standing != on_floor_lying:
        return on_floor_standing
    return _turn(poses, nearest) > _ROLL


def _turn(poses: PoseSequence, axis: Float[ndarray, "3"]) -> float:
    """Range of the directions in which a body looks that stands along an axis, radians."""
    ahead = Rotation.from_rotvec(poses.global_orient.double().numpy()).apply([0.0, 0.0, 1.0])
    first = np.roll(axis, 1)
    angles = np.unwrap(np.arctan2(ahead @ np.cross(axis, first), ahead @ first))
    return float(np.ptp(angles))


def _joints(poses: PoseSequence) -> Float[ndarray, "frames 24 3"]:
    """Joints of the free body in the motion's world, metres, in some frames over its whole length."""
    rows = np.unique(np.linspace(0, len(poses) - 1, _FRAMES).round().astype(int))
    return posed_joints(load_body_model("free"), poses.rows(torch.from_numpy(rows))).numpy()
