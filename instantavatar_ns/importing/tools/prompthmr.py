"""PromptHMR: `results.pkl` of joblib, with the people's SMPL-X poses, masks, and a moving camera.

Frames are at most 896 pixels high and 60 a second: focal length and masks are in pixels of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray

from instantavatar_ns.data.pixel_centers import resize_intrinsics
from instantavatar_ns.importing.result import Space, ToolResult, camera_to_world, make_track, required
from instantavatar_ns.utils.errors import InputError

_ADVICE = "Give results.pkl as PromptHMR's video pipeline wrote it"
_ASPECT = 0.02
"""Rounding of the resized frames' sides to whole (and even) pixels."""


def matches(content: Any) -> bool:
    """Find out if a file's content is this tool's."""
    return isinstance(content, Mapping) and isinstance(content.get("people"), Mapping) and "camera" in content


def read(path: Path, content: Mapping[str, Any], space: Space = "camera") -> ToolResult:
    """Read camera and people, whose poses are in the camera, or in the world where wanted and all people have them.

    Args:
        path: The result's file, for errors.
        content: `camera`, with a rotation and position for each frame of the video, and `people` by their names;
            radians, metres and pixels.
        space: Which poses to prefer.

    Raises:
        InputError: A key is missing, or see `make_track` and `camera_to_world`. The result's `pinhole` raises it for a
            video of another aspect ratio.
    """
    camera = content["camera"]
    required(path, camera, ("pred_cam_R", "pred_cam_T", "img_focal", "img_center"))
    to_world = camera_to_world(path, camera["pred_cam_R"], camera["pred_cam_T"])
    people = content["people"]
    of_all = _masks(content) if len(people) == 1 else None
    if not all(isinstance(person, Mapping) and "smplx_world" in person for person in people.values()):
        space = "camera"
    key = {"camera": "smplx_cam", "world": "smplx_world"}[space]
    tracks, size = {}, None if of_all is None else of_all.shape[1:]
    for name, person in people.items():
        required(path, person, ("frames", key))
        poses = person[key]
        required(path, poses, ("shape", "trans"))
        rotations = "rotmat" if "rotmat" in poses else "pose"
        required(path, poses, (rotations,))
        frames = np.asarray(person["frames"]).astype(int).reshape(-1)
        own = _masks(person)
        masks: dict[int, Any] = {}
        if own is not None and len(own) == len(frames):
            masks, size = dict(zip(frames.tolist(), own, strict=True)), own.shape[1:]
        elif of_all is not None:
            masks = dict(enumerate(of_all))
        arrays = {key: poses[key] for key in (rotations, "shape", "trans")}
        tracks[name] = make_track(path, name, frames, arrays, _ADVICE, masks=masks)
    focal = float(np.asarray(camera["img_focal"]).reshape(-1)[0])
    center = np.asarray(camera["img_center"], np.float64).reshape(-1)[:2]
    resized = (int(size[0]), int(size[1])) if size else (round(2 * center[1]), round(2 * center[0]))
    matrix = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1.0]])

    def of_video(video: tuple[int, int]) -> Float[ndarray, "3 3"]:
        scale_y, scale_x = video[0] / resized[0], video[1] / resized[1]
        if abs(scale_x / scale_y - 1) > _ASPECT:
            message = f"expected a video of height and width in the ratio of {resized}, which PromptHMR saw, found"
            raise InputError(path, f"{message} {video}", "Give the video that PromptHMR was run on")
        return resize_intrinsics(torch.from_numpy(matrix), scale_x, scale_y).numpy()

    words = f"img_focal, in pixels of the {resized[1]} x {resized[0]} frames that it saw"
    # Poses in the world are in one that the file tells apart from the camera's.
    moving = to_world if space == "camera" else None
    return ToolResult("PromptHMR", "SMPL-X", tracks, of_video, words, len(to_world), 0, moving, space)


def _masks(content: Mapping[str, Any]) -> Shaped[ndarray, "frames height width"] | None:
    masks = content.get("masks")
    return masks if isinstance(masks, ndarray) and masks.ndim == 3 else None
