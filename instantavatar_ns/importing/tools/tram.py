"""TRAM: a folder with `camera.npy` (a moving camera), `masks.npy` and `hps/hps_track_*.npy` (each person's poses)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from instantavatar_ns.importing.result import ToolResult, camera_to_world, make_track, required
from instantavatar_ns.importing.run_lengths import is_run_lengths
from instantavatar_ns.motion.pose_archives import read_content

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
