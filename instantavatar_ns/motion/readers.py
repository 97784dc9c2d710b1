"""SMPL parameters in the files that people keep them in: training poses, and motions of AIST++, AMASS, EDGE and others.

Training needs all of a pose, so a file without translation or shape is an error. A motion may lack them: the avatar's
shape is kept, and without translation it plays on the spot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from instantavatar_ns.motion.pose_archives import read_arrays
from instantavatar_ns.motion.smpl_arrays import (
    BETAS,
    CAMERA_TRANSLATIONS,
    TRANSLATIONS,
    as_array,
    described,
    one_of,
    read_betas,
    read_rotations,
    read_translations,
)
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

AIST_FPS, EDGE_FPS = 60.0, 30.0
_AMASS_RATES = ("mocap_framerate", "mocap_frame_rate")
_RATES = ("fps", "framerate", "frame_rate", "mocap_fps")
_Y, _Z = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
Axis = tuple[float, float, float]


@dataclass(frozen=True)
class PoseFile:
    """The SMPL parameters of one file.

    Attributes:
        global_orient: Axis-angle rotation of the root, radians.
        body_pose: Axis-angle rotations of the 23 other joints, radians. The hands of SMPL-H and SMPL-X are flattened.
        transl: Translation, metres.
        betas: Shape coefficients (mean over the frames).
    """

    global_orient: Float32[np.ndarray, "frames 3"]
    body_pose: Float32[np.ndarray, "frames 69"]
    transl: Float32[np.ndarray, "frames 3"]
    betas: Float32[np.ndarray, "10"]

    def __len__(self) -> int:
        return len(self.transl)


@dataclass(frozen=True)
class MotionFile:
    """The motion of one file.

    Attributes:
        global_orient: As of `PoseFile`.
        body_pose: As of `PoseFile`.
        transl: Translation, metres; zeros where the file has none.
        fps: Frames per second, None where the file does not say.
        up: The vertical axis that the file's format prescribes, None where it prescribes none.
    """

    global_orient: Float32[np.ndarray, "frames 3"]
    body_pose: Float32[np.ndarray, "frames 69"]
    transl: Float32[np.ndarray, "frames 3"]
    fps: float | None = None
    up: Axis | None = None

    def __len__(self) -> int:
        return len(self.transl)


def read_pose_file(path: Path) -> PoseFile:
    """Read training poses; the names of the arrays tell what they are.

    Raises:
        InputError: The file is missing, unreadable, empty, of another skeleton, holds NaN, or has no translation or no
            shape under a known name.
    """
    return pose_file_from_arrays(path, read_arrays(path, "camera"))


def pose_file_from_arrays(path: Path, arrays: Mapping[str, Any]) -> PoseFile:
    """Interpret named arrays; `path` is for the errors only. See `read_pose_file`."""
    poses, joints = read_rotations(path, arrays)
    transl, betas = read_translations(path, arrays, len(poses)), read_betas(path, arrays, len(poses))
    if transl is None:
        raise _missing(path, arrays, "SMPL's translation (T, 3) in metres", TRANSLATIONS, "transl")
    if betas is None:
        raise _missing(path, arrays, "SMPL's ten betas", BETAS, "betas")
    in_camera = next((name for name in TRANSLATIONS if name in arrays), "") in CAMERA_TRANSLATIONS
    if in_camera:
        notice(path, "Its translation is in the camera, so the world is the camera's: extrinsic must be the identity.")
    if joints != 24:
        notice(
            path,
            f"Poses of {joints} joints are SMPL-H's or SMPL-X's. Root and body joints are used, with flat hands. Betas "
            "fitted with SMPL-H or SMPL-X describe another person with SMPL: fit them with the body model in use.",
        )
    poses = poses.astype(np.float32)
    return PoseFile(poses[:, :3], poses[:, 3:], transl.astype(np.float32), betas.astype(np.float32))


def _missing(path: Path, arrays: Mapping[str, Any], what: str, names: tuple[str, ...], name: str) -> InputError:
    message = f"expected {what} as one of {', '.join(names)}, found {described(arrays)}"
    advice = f"If one of these arrays means the same, save it under the name {name}"
    if name == "transl" and "Th" in arrays and "Rh" in arrays:
        advice = (
            "EasyMocap's Rh turns the body about the world's origin, not about the pelvis. Save transl = Th + Rh @ "
            "pelvis - pelvis, with Rh as a matrix and the pelvis of the resting body, and Rh as global_orient"
        )
    elif name == "transl" and "Th" in arrays:
        advice = (
            "EasyMocap's Th is SMPL's transl if the poses hold the root's rotation: then save it under the name "
            "transl. Where there is an Rh, that is the root's rotation, about the world's origin"
        )
    return InputError(path, message, advice)


def read_motion_file(path: Path, fps: float | None = None) -> MotionFile:
    """Read a motion; the names of the arrays tell its format.

    Args:
        path: As of `read_arrays`.
        fps: Frames per second, in place of what the file says.

    Raises:
        InputError: The file is missing, unreadable, empty, of another skeleton, holds NaN, or a rate that is none.
    """
    arrays = read_arrays(path, "world")
    if "pose_world" in arrays and "trans_world" in arrays:
        # WHAM keeps each pose in the camera and in the world.
        arrays = {"pose": arrays["pose_world"], "trans": arrays["trans_world"]}
    poses, _ = read_rotations(path, arrays)
    transl = read_translations(path, arrays, len(poses))
    if transl is None:
        known = ", ".join(TRANSLATIONS)
        notice(path, f"It has no translation ({known}), so the motion stays on the spot. It has {described(arrays)}.")
        transl = np.zeros((len(poses), 3))
    up, default_fps = None, None
    if any(name in arrays for name in _AMASS_RATES):
        up = _Z
    elif "smpl_poses" in arrays and "smpl_scaling" in arrays:
        up, default_fps = _Y, AIST_FPS
    elif "smpl_poses" in arrays and "smpl_trans" in arrays:
        up, default_fps = _Z, EDGE_FPS
        notice(path, "Took it for EDGE's, as AIST++ has smpl_scaling: z up (--up), 30 frames a second (--source-fps).")
    if fps is None:
        fps = _frame_rate(path, arrays) or default_fps
    poses = poses.astype(np.float32)
    return MotionFile(poses[:, :3], poses[:, 3:], transl.astype(np.float32), fps, up)


def _frame_rate(path: Path, arrays: Mapping[str, Any]) -> float | None:
    """Frames per second, None where the file does not say; as a number, text of one, or an array of one number.

    Raises:
        InputError: It is no positive number, or differs from name to name.
    """
    name = one_of(path, arrays, (*_AMASS_RATES, *_RATES))
    if name is None:
        return None
    value = as_array(arrays[name])
    try:
        rate = float(value.reshape(-1)[0]) if value.size == 1 and value.dtype.kind in "fiuUS" else np.nan
    except ValueError:
        rate = np.nan
    if not (np.isfinite(rate) and rate > 0):
        found = value.reshape(-1)[0] if value.size == 1 else f"an array {value.shape}"
        message = f"expected {name} to be a positive number of frames per second, found {found}"
        raise InputError(path, message, "Give the rate with --source-fps")
    return rate
