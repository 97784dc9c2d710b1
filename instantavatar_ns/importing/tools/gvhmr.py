"""GVHMR: `hmr4d_results.pt`, one person's SMPL-X poses in the camera and in the world, and a camera of each frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from instantavatar_ns.importing.result import Space, ToolResult, make_track
from instantavatar_ns.utils.errors import InputError

_ADVICE = "Give hmr4d_results.pt as GVHMR's demo wrote it"


def matches(content: Any) -> bool:
    """Find out if a file's content is this tool's."""
    return isinstance(content, Mapping) and bool({"smpl_params_incam", "smpl_params_global"} & set(content))


def read(path: Path, content: Mapping[str, Any], space: Space = "camera") -> ToolResult:
    """Read the poses in the camera, or in the world where they are wanted and there.

    Args:
        path: The result's file, for errors.
        content: `smpl_params_incam`, radians and metres, with a row for each frame; `K_fullimg`, pixels, one camera
            matrix or one for each frame. Poses in the world, `smpl_params_global`, need no camera.
        space: Which poses to prefer.

    Raises:
        InputError: A key is missing, camera matrices have another shape or hold NaN, or see `make_track`.
    """
    if space == "world" and "smpl_params_global" in content:
        poses = _complete(path, content, "smpl_params_global")
        track = make_track(path, "0", range(len(poses["global_orient"])), poses, _ADVICE)
        return ToolResult("GVHMR", "SMPL-X", {"0": track}, None, "", num_frames=len(track), space="world")
    missing = [key for key in ("smpl_params_incam", "K_fullimg") if key not in content]
    if missing:
        message = f"expected {' and '.join(missing)}, found {', '.join(sorted(content))}"
        raise InputError(path, message, _ADVICE)
    poses, matrices = _complete(path, content, "smpl_params_incam"), np.asarray(content["K_fullimg"], np.float64)
    frames = len(poses["global_orient"])
    if matrices.shape not in ((3, 3), (frames, 3, 3)) or not np.isfinite(matrices).all():
        message = f"expected K_fullimg of {frames} frames in finite numbers, found {matrices.shape}"
        raise InputError(path, message, _ADVICE)
    intrinsics = np.broadcast_to(matrices, (frames, 3, 3)).copy()
    track = make_track(path, "0", range(frames), poses, _ADVICE, intrinsics=intrinsics)
    return ToolResult("GVHMR", "SMPL-X", {"0": track}, None, "K_fullimg of the file", num_frames=frames)


def _complete(path: Path, content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    poses = content[name]
    keys = [key for key in ("global_orient", "body_pose", "betas", "transl") if key not in poses]
    if keys:
        raise InputError(path, f"expected {', '.join(keys)} in {name}, found {', '.join(sorted(poses))}", _ADVICE)
    return poses
