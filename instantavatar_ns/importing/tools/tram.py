"""TRAM: a folder with `camera.npy` (a moving camera), `masks.npy` and `hps/hps_track_*.npy` (each person's poses)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from instantavatar_ns.importing.result import ToolResult, make_track
from instantavatar_ns.importing.run_lengths import is_run_lengths
from instantavatar_ns.motion.pose_archives import read_content
from instantavatar_ns.utils.errors import InputError

_ADVICE = "Give TRAM's folder of the video, with camera.npy, masks.npy and hps/ as it wrote them"


def matches(folder: Path) -> bool:
    """Find out if a folder is this tool's."""
    return (folder / "camera.npy").is_file() and any(folder.glob("hps/*.npy"))


def read(folder: Path) -> ToolResult:
    """Read camera and people; masks only where there is one person, whom alone they show."""
    path = folder / "camera.npy"
    camera = read_content(path)
    required(path, camera, ("pred_cam_R", "pred_cam_T", "img_focal", "img_center"))
    to_world = camera_to_world(path, camera["pred_cam_R"], camera["pred_cam_T"])
    focal = float(np.asarray(camera["img_focal"]).reshape(-1)[0])
    center = np.asarray(camera["img_center"], np.float64).reshape(-1)[:2]
    matrix = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1.0]])
    files = sorted(folder.glob("hps/*.npy"))
    masks: dict[int, Any] = {}
    if (folder / "masks.npy").is_file() and len(files) == 1:
        content = read_content(folder / "masks.npy")
        masks = {frame: mask for frame, mask in enumerate(content) if is_run_lengths(mask) or np.ndim(mask) == 2}
    tracks = {}
    for file in files:
        person = read_content(file)
        required(file, person, ("pred_rotmat", "pred_shape", "pred_trans", "frame"))
        arrays = {key: person[key] for key in ("pred_rotmat", "pred_shape", "pred_trans")}
        name = file.stem.rsplit("_", 1)[-1]
        tracks[name] = make_track(file, name, person["frame"], arrays, _ADVICE, masks=masks)
    return ToolResult(
        "TRAM", "SMPL", tracks, lambda size: matrix, "img_focal of camera.npy", len(to_world), 0, to_world
    )


def required(path: Path, content: Any, keys: tuple[str, ...]) -> None:
    """Check that a file's dictionary has keys.

    Raises:
        InputError: It is no dictionary, or lacks one.
    """
    if not isinstance(content, Mapping):
        raise InputError(path, f"expected {', '.join(keys)}, found no named arrays", _ADVICE)
    missing = [key for key in keys if key not in content]
    if missing:
        message = f"expected {', '.join(missing)}, found {', '.join(sorted(content)) or 'nothing'}"
        raise InputError(path, message, "Run the tool again, and give its files as it wrote them")


def camera_to_world(path: Path, rotations: Any, positions: Any) -> Float[ndarray, "frames 4 4"]:
    """Transforms out of rotations (T, 3, 3) and positions (T, 3), metres.

    Raises:
        InputError: The shapes are others, or a number is not finite.
    """
    rotations, positions = np.asarray(rotations, np.float64), np.asarray(positions, np.float64)
    positions = positions.reshape(len(positions), -1)
    if rotations.shape != (len(positions), 3, 3) or positions.shape[1] != 3:
        message = f"expected camera rotations (T, 3, 3) and positions (T, 3), found {rotations.shape} and"
        raise InputError(path, f"{message} {positions.shape}", _ADVICE)
    if not (np.isfinite(rotations).all() and np.isfinite(positions).all()):
        raise InputError(path, "expected finite numbers, found NaN or infinity in the camera's motion", _ADVICE)
    transforms = np.tile(np.eye(4), (len(rotations), 1, 1))
    transforms[:, :3, :3], transforms[:, :3, 3] = rotations, positions
    return transforms
