"""Motions, and how a motion from anywhere is brought to the place where the avatar stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.motion.free_motions import find_motion, library_names
from instantavatar_ns.motion.readers import read_motion_file
from instantavatar_ns.motion.retargeting import read_bvh_poses
from instantavatar_ns.motion.up_axis import AXES, choose_up
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

DEFAULT_FPS = 30.0
UpAxis = Literal["x", "y", "z", "-x", "-y", "-z"]
_FASTEST = 12.0
"""Metres per second that no person exceeds."""
_HIGHEST = 20.0
"""Metres above or below the origin that no recording reaches."""


@dataclass(frozen=True, eq=False)
class Motion(PoseSequence):
    """Poses over time, in a world of their own.

    Attributes:
        fps: Frames per second.
        up: The vertical direction in the motion's world, of unit length.
        name: What players call it.
    """

    fps: float
    up: Float[Tensor, "3"]
    name: str = ""

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the last."""
        return (len(self) - 1) / self.fps


def load_motion(path: Path, fps: float | None = None, up: UpAxis | None = None) -> Motion:
    """Load a motion as its file gives it (`place_motion` moves it); see `readers` and `bvh` for the formats.

    What the file does not say is assumed, with a notice.

    Args:
        path: A `.npz`, `.npy`, `.pkl`, `.pt` or `.bvh` file, the name of a motion of the `library`, or, once
            `importing.motions` is imported, the file or folder that a pose estimator wrote.
        fps: Frames per second; by default the file's, 60 for AIST++, else 30.
        up: The vertical axis; by default see `choose_up`.

    Raises:
        InputError: The file is missing, unreadable, empty, of another skeleton, or holds NaN.
    """
    path = find_motion(path)
    if not (path.is_file() or path.is_dir()):
        advice = (
            f"Give a .npz, .pkl or .bvh file, or the name of a motion that comes along: {', '.join(library_names())}"
        )
        raise InputError(path, "expected a motion, found no such file", advice)
    if fps is not None and not (np.isfinite(fps) and fps > 0):
        raise InputError("--source-fps", f"expected a positive number, found {fps}", "Give frames per second")
    is_bvh = path.suffix.lower() == ".bvh" and path.is_file()
    poses, facts = read_bvh_poses(path) if is_bvh else read_motion_file(path, fps)
    rate = fps or facts.fps
    if rate is None:
        rate = DEFAULT_FPS
        if len(poses) > 1:
            notice(path, f"It names no frame rate. Took {rate:g} frames per second (--source-fps).")
    vertical = choose_up(path, poses, facts.up) if up is None else AXES[up]
    _notice_units(path, poses.transl.numpy(), rate, vertical)
    return Motion(**vars(poses), fps=float(rate), up=torch.from_numpy(vertical).float(), name=path.stem)


def _notice_units(path: Path, transl: Float[np.ndarray, "frames 3"], fps: float, up: Float[np.ndarray, "3"]) -> None:
    """Say so if translations cannot be metres."""
    speeds = np.linalg.norm(np.diff(transl, axis=0), axis=1) * fps
    height = float(np.median(np.abs(transl @ up)))
    if len(speeds) and np.median(speeds) > _FASTEST:
        found = f"moves at {np.median(speeds):.0f} m/s for half of the time"
    elif height > _HIGHEST:
        found = f"is {height:.0f} m above or below the origin"
    else:
        return
    notice(
        path,
        f"The person {found}: translations must be in metres. Divide them by 100 if they are in centimetres, by 1000 "
        f"if in millimetres. Or the rate of {fps:g} frames per second is wrong (--source-fps).",
    )


def place_motion(motion: Motion, stand: PoseSequence, up: Float[Tensor, "3"]) -> Motion:
    """Move a motion rigidly so that it starts where, and in the direction in which, a reference pose stands.

    A body's pelvis lies at its translation plus an offset that does not depend on the pose, so equal translations mean
    equal pelvis positions, whosever body the motion was captured from.

    Args:
        motion: Any motion.
        stand: The reference pose, one frame, such as the first training pose.
        up: The vertical direction in the reference's world, of unit length.
    """
    target = _upright_frame(Rotation.from_rotvec(stand.global_orient[0].double().numpy()), up.double().numpy())
    source = _upright_frame(Rotation.from_rotvec(motion.global_orient[0].double().numpy()), motion.up.double().numpy())
    turn = target @ source.T
    orients = Rotation.from_matrix(turn) * Rotation.from_rotvec(motion.global_orient.double().numpy())
    steps = (motion.transl - motion.transl[0]).double().numpy() @ turn.T
    return replace(
        motion,
        global_orient=torch.from_numpy(orients.as_rotvec()).to(motion.global_orient),
        transl=torch.from_numpy(steps).to(motion.transl) + stand.transl.to(motion.transl),
        up=up.to(motion.up),
    )


def resample(motion: Motion, fps: float) -> Motion:
    """Resample a motion: rotations along the shortest arc, translations linearly.

    Args:
        motion: Any motion.
        fps: Frames per second wanted.
    """
    if len(motion) == 1 or fps == motion.fps:
        return replace(motion, fps=fps)
    times = np.arange(len(motion)) / motion.fps
    # A frame that rounding puts just after the last one belongs to the motion.
    wanted = np.minimum(np.arange(int(motion.duration * fps + 1e-6) + 1) / fps, times[-1])
    joints = motion.axis_angles.double().numpy().swapaxes(0, 1)
    turned = np.stack([Slerp(times, Rotation.from_rotvec(joint))(wanted).as_rotvec() for joint in joints], axis=1)
    transl = np.stack([np.interp(wanted, times, axis) for axis in motion.transl.T.numpy()], axis=1)
    angles, shifts = (torch.from_numpy(values).to(motion.transl) for values in (turned, transl))
    return replace(motion.with_pose(angles, shifts), fps=fps)


def _upright_frame(orient: Rotation, up: np.ndarray) -> np.ndarray:
    """Columns: left, up and ahead of a body of this root rotation, with `up` kept and the others level."""
    left, ahead = orient.apply([1.0, 0.0, 0.0]), orient.apply([0.0, 0.0, 1.0])
    # The left side stays level when the body bows or lies on its back; lying on the side, its front does.
    level = np.cross(left, up)
    if np.linalg.norm(level) < 0.1:
        level = ahead - (ahead @ up) * up
    level = level / np.linalg.norm(level)
    return np.stack([np.cross(up, level), up, level], axis=1)
