"""Motions of the demo subject: a turn in an A-pose as in PeopleSnapshot, a dance not to train on, and pose noise.

All functions are pure; angles are radians, positions metres, time runs in cycles of the motion. The world is the
camera's: OpenCV axes (x right, y down, z away), so a body that stands upright and looks at the camera has the global
orientation (pi, 0, 0).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.smpl import JOINT_NAMES, NUM_JOINTS

_UPRIGHT = Rotation.from_rotvec([np.pi, 0.0, 0.0])
_TWO_PI = 2.0 * np.pi


def turn_poses(
    turns: Float[ndarray, " frames"], rng: np.random.Generator
) -> tuple[Float[ndarray, "frames joints 3"], Float[ndarray, "frames 3"]]:
    """A person turning round in an A-pose, swaying slightly.

    Args:
        turns: Turns made at each frame; 0 and 1 face the camera.
        rng: Draws the sway.

    Returns:
        Axis-angle rotations of all joints and the sway of the root about the place it stands on.
    """
    sway = _sway(turns, rng, NUM_JOINTS * 3).reshape(-1, NUM_JOINTS, 3)
    poses = {name: 0.03 * sway[:, joint] for joint, name in enumerate(JOINT_NAMES)}
    poses["pelvis"] = 0.02 * sway[:, 0]
    poses["left_shoulder"] = poses["left_shoulder"] + [0.06, 0.0, -0.86]
    poses["right_shoulder"] = poses["right_shoulder"] + [0.06, 0.0, 0.86]
    poses["left_elbow"] = 1.3 * poses["left_elbow"] + [0.0, -0.18, 0.0]
    poses["right_elbow"] = 1.3 * poses["right_elbow"] + [0.0, 0.18, 0.0]
    poses["left_hip"] = poses["left_hip"] + [0.0, 0.06, 0.10]
    poses["right_hip"] = poses["right_hip"] + [0.0, -0.06, -0.10]
    # People who turn on the spot hold their feet still on the floor: no sway below the knees.
    for name in ("left_ankle", "right_ankle", "left_foot", "right_foot"):
        poses[name] = 0.2 * poses[name]
    return _assemble(poses, yaw=_TWO_PI * turns), _sway(turns, rng, 3) * [0.02, 0.003, 0.02]


def dance_poses(
    beats: Float[ndarray, " frames"],
) -> tuple[Float[ndarray, "frames joints 3"], Float[ndarray, "frames 3"]]:
    """A dance: stepping from foot to foot in bent knees, one arm waving, the other swinging, the torso twisting.

    Args:
        beats: Bars of the dance at each frame; integers repeat the pose.

    Returns:
        Axis-angle rotations of all joints and the root's shift sideways. The height of the root is left to the caller,
        who knows where the floor is.
    """
    swing = np.sin(_TWO_PI * beats)
    slow = np.sin(_TWO_PI * beats / 2.0)
    left_up, right_up = np.clip(swing, 0.0, None) ** 1.5, np.clip(-swing, 0.0, None) ** 1.5
    dip = 0.5 - 0.5 * np.cos(2.0 * _TWO_PI * beats)
    flex_left, flex_right = 0.25 + 0.15 * dip + 0.75 * left_up, 0.25 + 0.15 * dip + 0.75 * right_up
    wave = np.sin(2.0 * _TWO_PI * beats)
    zero = np.zeros_like(beats)
    poses = {
        "left_hip": _stack(-flex_left, 0.10 + zero, 0.14 + 0.05 * swing),
        "right_hip": _stack(-flex_right, -0.10 + zero, -0.14 + 0.05 * swing),
        "left_knee": _stack(1.75 * flex_left, zero, zero),
        "right_knee": _stack(1.75 * flex_right, zero, zero),
        "left_ankle": _stack(-0.75 * flex_left + 0.5 * left_up, zero, -0.10 + zero),
        "right_ankle": _stack(-0.75 * flex_right + 0.5 * right_up, zero, 0.10 + zero),
        "spine1": _stack(0.06 + 0.04 * dip, 0.10 * swing, -0.07 * swing),
        "spine2": _stack(0.04 * dip, 0.12 * swing, -0.05 * swing),
        "spine3": _stack(zero, 0.10 * swing, -0.04 * swing),
        "neck": _stack(zero, -0.12 * swing, 0.06 * swing),
        "head": _stack(-0.05 + 0.08 * dip, -0.15 * swing, 0.08 * swing),
        "right_collar": _stack(zero, zero, -0.18 + zero),
        "right_shoulder": _stack(zero, 0.15 + zero, -0.02 - 0.10 * wave),
        "right_elbow": _stack(zero, 0.25 + zero, -1.15 - 0.30 * wave),
        "right_wrist": _stack(zero, zero, -0.20 * wave),
        "left_shoulder": _stack(0.15 + zero, -0.15 - 0.25 * swing, -0.90 + 0.20 * slow),
        "left_elbow": _stack(zero, -0.75 - 0.25 * swing, zero),
        "left_wrist": _stack(zero, zero, 0.15 * swing),
    }
    shift = _stack(-0.07 * swing, zero, 0.02 * slow)
    return _assemble(poses, yaw=0.45 * slow), shift


def add_pose_noise(
    poses: Float[ndarray, "frames joints 3"],
    transl: Float[ndarray, "frames 3"],
    *,
    degrees: float,
    millimeters: float,
    correlation: float,
    rng: np.random.Generator,
) -> tuple[Float[ndarray, "frames joints 3"], Float[ndarray, "frames 3"]]:
    """The poses as an estimator would give them, with errors that drift over time.

    Args:
        poses: Axis-angle rotations, radians.
        transl: Translations, metres.
        degrees: Standard deviation of each joint's rotation error about each axis.
        millimeters: Standard deviation of the translation error along each axis.
        correlation: Frames over which errors stay alike (standard deviation of a Gaussian).
        rng: Draws the errors.

    Returns:
        Rotations and translations with errors; the deviations over all frames are exactly as asked for.
    """
    frames = len(poses)
    errors = gaussian_filter1d(rng.standard_normal((frames, NUM_JOINTS * 3 + 3)), correlation, axis=0, mode="reflect")
    rotation_errors, shifts = errors[:, :-3], errors[:, -3:]
    rotation_errors = rotation_errors * np.radians(degrees) / np.sqrt(np.mean(rotation_errors**2))
    shifts = shifts * millimeters * 1e-3 / np.sqrt(np.mean(shifts**2))
    noisy = Rotation.from_rotvec(rotation_errors.reshape(-1, 3)) * Rotation.from_rotvec(poses.reshape(-1, 3))
    return noisy.as_rotvec().reshape(poses.shape), transl + shifts


def _assemble(poses: dict[str, ndarray], yaw: Float[ndarray, " frames"]) -> Float[ndarray, "frames joints 3"]:
    """Rotations of all joints in SMPL's order, the root upright in camera axes, turned by `yaw` about the vertical."""
    rest = np.zeros((len(yaw), 3))
    out = np.stack([np.broadcast_to(poses.get(name, rest), rest.shape) for name in JOINT_NAMES], axis=1)
    heading = Rotation.from_rotvec(np.outer(yaw, [0.0, 1.0, 0.0]))
    out[:, 0] = (_UPRIGHT * heading * Rotation.from_rotvec(out[:, 0])).as_rotvec()
    return out


def _sway(
    time: Float[ndarray, " frames"], rng: np.random.Generator, channels: int
) -> Float[ndarray, "frames channels"]:
    """Slow aperiodic wobbles of about unit size, one a channel."""
    # Rates that share no period, so that a second turn does not repeat the first one's poses.
    rates = rng.uniform(0.6, 2.4, (2, channels))
    phases = rng.uniform(0.0, _TWO_PI, (2, channels))
    waves = np.sin(_TWO_PI * time[:, None, None] * rates + phases)
    return waves.sum(axis=1) / np.sqrt(2.0)


def _stack(x: ndarray, y: ndarray, z: ndarray) -> Float[ndarray, "frames 3"]:
    return np.stack([x, y, z], axis=-1)
