"""SMPL parameters in the files that people keep them in: training poses, and motions of AIST++, AMASS, EDGE and others.

Training needs all of a pose, so a file without translation or shape is an error. A motion may lack them: the avatar's
shape is kept, and without translation it plays on the spot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped

from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.body.smpl import NUM_BETAS, NUM_JOINTS
from instantavatar_ns.motion.pose_archives import arrays_of_content, read_arrays, read_content
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
MotionReader = Callable[[Path, Any], PoseSequence | None]
_motion_readers: list[MotionReader] = []


class FileFacts(NamedTuple):
    """Facts that a motion's file tells beside its poses.

    Attributes:
        fps: Frames per second, None where the file does not say.
        up: The vertical axis that the file's format prescribes, None where it prescribes none.
    """

    fps: float | None = None
    up: Axis | None = None


def read_pose_file(path: Path) -> PoseSequence:
    """Read training poses; the names of the arrays tell what they are.

    Betas are the mean over the frames. The hands of SMPL-H and SMPL-X are flattened.

    Raises:
        InputError: The file is missing, unreadable, empty, of another skeleton, holds NaN, or has no translation or no
            shape under a known name.
    """
    return poses_from_arrays(path, read_arrays(path, "camera"))


def poses_from_arrays(path: Path, arrays: Mapping[str, Any]) -> PoseSequence:
    """Interpret named arrays as training poses; see `read_pose_file`.

    Args:
        path: File that they come from, for messages only.
        arrays: SMPL's parameters under names of `smpl_arrays`, a row for each frame.

    Raises:
        InputError: As of `read_pose_file`.
    """
    poses, joints = read_rotations(path, arrays)
    transl, betas = read_translations(path, arrays, len(poses)), read_betas(path, arrays, len(poses))
    if transl is None:
        raise _missing(path, arrays, "SMPL's translation (T, 3) in metres", TRANSLATIONS, "transl")
    if betas is None:
        raise _missing(path, arrays, "SMPL's ten betas", BETAS, "betas")
    in_camera = next((name for name in TRANSLATIONS if name in arrays), "") in CAMERA_TRANSLATIONS
    if in_camera:
        notice(path, "Its translation is in the camera, so the world is the camera's: extrinsic must be the identity.")
    if joints != NUM_JOINTS:
        notice(
            path,
            f"Poses of {joints} joints are SMPL-H's or SMPL-X's. Root and body joints are used, with flat hands. Betas "
            "fitted with SMPL-H or SMPL-X describe another person with SMPL: fit them with the body model in use.",
        )
    return pose_sequence(poses, transl, betas)


def pose_sequence(
    poses: Shaped[np.ndarray, "frames ..."],
    transl: Float[np.ndarray, "frames 3"],
    betas: Float[np.ndarray, "10"] | None = None,
) -> PoseSequence:
    """Return poses of NumPy arrays, in single precision.

    Args:
        poses: Axis-angle rotations of all joints, radians, the root first.
        transl: Translation, metres.
        betas: Shape coefficients, by default zeros.
    """
    betas = np.zeros(NUM_BETAS) if betas is None else betas
    angles, shifts, shape = (torch.from_numpy(values.astype(np.float32)) for values in (poses, transl, betas))
    angles = angles.flatten(1)
    return PoseSequence(shape, angles[:, :3], angles[:, 3:], shifts)


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


def read_motions_with(reader: MotionReader) -> MotionReader:
    """Register a function that reads motions of more kinds, which is asked first.

    Args:
        reader: Takes a path and the content of the file (`read_content`; None of a folder), and returns poses, or None
            for what it does not know.

    Returns:
        The function itself, so that this serves as a decorator.
    """
    if reader not in _motion_readers:
        _motion_readers.append(reader)
    return reader


def read_motion_file(path: Path, fps: float | None = None) -> tuple[PoseSequence, FileFacts]:
    """Read a motion; the names of the arrays tell its format.

    Args:
        path: As of `read_arrays`, or what a function of `read_motions_with` knows.
        fps: Frames per second, in place of what the file says.

    Returns:
        The poses, with betas of zero, since a motion is played by somebody else, and translations of zero where the
        file has none; and what else the file says.

    Raises:
        InputError: The file is missing, unreadable, empty, of another skeleton, holds NaN, or a rate that is none.
    """
    content = None if path.is_dir() else read_content(path, "world")
    for reader in _motion_readers:
        known = reader(path, content)
        if known is not None:
            named = content if isinstance(content, Mapping) else {}
            return known, FileFacts(_frame_rate(path, named) if fps is None else fps)
    if content is None and path.is_dir():
        raise InputError(path, "expected a motion's file, found a folder", "Give a file in it")
    arrays = arrays_of_content(path, content, "world")
    if {"pred_rotmat", "pred_trans"} <= set(arrays):
        notice(
            path,
            "As TRAM's hps, its poses are the camera's: if it moved, that is part of the motion. Give the folder with "
            "camera.npy and hps/, which tells how.",
        )
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
    return pose_sequence(poses, transl), FileFacts(fps, up)


def _frame_rate(path: Path, arrays: Mapping[str, Any]) -> float | None:
    """Frames per second, None where the file does not say; as a number, text of one, or an array of one number.

    Names are known in upper and lower case.

    Raises:
        InputError: It is no positive number, or differs from name to name.
    """
    named = [key for known in (*_AMASS_RATES, *_RATES) for key in arrays if key.lower() == known]
    name = one_of(path, arrays, tuple(named))
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
