"""SMPL parameters in the files that people keep them in: pose estimates, AIST++, AMASS.

SMPL-H and SMPL-X share SMPL's root and its first 21 body joints; what follows, fingers and face, SMPL has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from instantavatar_ns.body.unpickle import load_plain_pickle
from instantavatar_ns.errors import InputError
from instantavatar_ns.npz import read_npz

AIST_FPS = 60.0
_SMPL, _SMPLH, _SMPLX = 72, 156, 165
_ADVICE = (
    "Give an .npz with poses (T, 72) and trans (T, 3), thetas (T, 72) and transl (T, 3), or global_orient (T, 3), "
    "body_pose (T, 69) and transl (T, 3); an AMASS .npz (SMPL, SMPL-H or SMPL-X); an AIST++ .pkl; or a .bvh"
)


@dataclass(frozen=True)
class PoseFile:
    """The SMPL parameters of one file.

    Attributes:
        global_orient: Axis-angle rotation of the root, radians.
        body_pose: Axis-angle rotations of the 23 other joints, radians. The hands of SMPL-H and SMPL-X are flattened.
        transl: Translation, metres; zeros where the file has none.
        betas: Shape coefficients (mean over the frames), zeros where the file has none.
        fps: Frames per second, None where the file does not say.
        up: The vertical axis that the file's format prescribes, None where it prescribes none.
    """

    global_orient: Float32[np.ndarray, "frames 3"]
    body_pose: Float32[np.ndarray, "frames 69"]
    transl: Float32[np.ndarray, "frames 3"]
    betas: Float32[np.ndarray, "10"]
    fps: float | None = None
    up: tuple[float, float, float] | None = None

    def __len__(self) -> int:
        return len(self.transl)


def read_pose_file(path: Path) -> PoseFile:
    """Read the SMPL parameters of a `.npz` or `.pkl` file; the key names tell its format.

    Raises:
        InputError: The file is missing, unreadable, empty, of another skeleton, or holds NaN.
    """
    return pose_file_from_arrays(path, _load_arrays(path))


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    return load_plain_pickle(path) if path.suffix == ".pkl" else read_npz(path, "SMPL poses", _ADVICE)


def pose_file_from_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> PoseFile:
    """Interpret named arrays; `path` is for the errors only. See `read_pose_file`."""
    poses, fps, up = _full_pose(path, arrays)
    if len(poses) == 0:
        raise InputError(path, "expected at least one pose, found none", _ADVICE)
    transl = _first(arrays, "transl", "trans", "smpl_trans")
    if transl is None:
        transl = np.zeros((len(poses), 3))
    transl = np.asarray(transl, np.float64)
    if "smpl_scaling" in arrays:
        # AIST++ keeps the translation in units of its own body scale.
        transl = transl / float(np.asarray(arrays["smpl_scaling"]).reshape(-1)[0])
    if transl.shape != (len(poses), 3):
        raise InputError(path, f"expected translations of shape {(len(poses), 3)}, found {transl.shape}", _ADVICE)
    for name, values in (("poses", poses), ("translations", transl)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            message = f"expected finite numbers, found NaN or infinity in the {name} of frame {bad[0]}"
            raise InputError(path, message, "Estimate that frame's pose again or leave the frame out")
    poses = poses.astype(np.float32)
    return PoseFile(poses[:, :3], poses[:, 3:], transl.astype(np.float32), _betas(path, arrays), fps, up)


def _full_pose(
    path: Path, arrays: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, float | None, tuple[float, float, float] | None]:
    """All 24 joints' rotations (T, 72), frames per second and the up axis if the format fixes it."""
    if "global_orient" in arrays and "body_pose" in arrays:
        parts = [np.asarray(arrays[key], np.float64) for key in ("global_orient", "body_pose")]
        parts = [_rows(part) for part in parts]
        if len(parts[0]) != len(parts[1]):
            message = f"expected as many global_orient as body_pose, found {len(parts[0])} and {len(parts[1])}"
            raise InputError(path, message, _ADVICE)
        poses = np.concatenate(parts, axis=1)
    else:
        found = _first(arrays, "poses", "thetas", "smpl_poses", "pose")
        if found is None:
            raise InputError(path, f"expected SMPL poses, found {', '.join(sorted(arrays)) or 'nothing'}", _ADVICE)
        poses = np.asarray(found, np.float64)
        poses = _rows(poses)
    rate = _first(arrays, "mocap_framerate", "mocap_frame_rate")
    width = poses.shape[1]
    # 165 numbers can be joints in any order; AMASS says of its files what they are.
    known = (_SMPL, _SMPLH) if rate is None else (_SMPL, _SMPLH, _SMPLX)
    if len(poses) and width not in known:
        kind = " (55 joints, SMPL-X) without the frame rate of an AMASS file" if width == _SMPLX else ""
        message = f"expected poses of 72 (SMPL) or 156 (SMPL-H) numbers a frame, found {width}{kind}"
        advice = "Convert the motion to SMPL or SMPL-H"
        if width == _SMPLX:
            advice += ", or add mocap_frame_rate if it is AMASS's SMPL-X: z up, root and 21 body joints first"
        raise InputError(path, message, advice)
    if width in (_SMPLH, _SMPLX):
        poses = np.concatenate([poses[:, :66], np.zeros((len(poses), 6))], axis=1)
    if rate is not None:
        return poses, float(rate), (0.0, 0.0, 1.0)
    if "smpl_poses" in arrays:
        return poses, AIST_FPS, (0.0, 1.0, 0.0)
    rate = _first(arrays, "fps")
    return poses, None if rate is None else float(rate), None


def _rows(values: np.ndarray) -> np.ndarray:
    """The numbers of each frame in one row; a single row stands for one frame."""
    values = np.atleast_2d(values)
    return values.reshape(len(values), int(np.prod(values.shape[1:])))


def _betas(path: Path, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    betas = np.asarray(arrays.get("betas", np.zeros(10)), np.float32)
    betas = betas.reshape(-1, betas.shape[-1]).mean(axis=0)[:10] if betas.size else np.zeros(10, np.float32)
    if not np.isfinite(betas).all():
        raise InputError(path, "expected finite betas, found NaN or infinity", "Fit the body's shape again")
    return np.pad(betas, (0, 10 - len(betas)))


def _first(arrays: Mapping[str, np.ndarray], *keys: str) -> np.ndarray | None:
    return next((arrays[key] for key in keys if key in arrays), None)
