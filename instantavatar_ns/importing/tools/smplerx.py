"""SMPLer-X and OSX: `smplx/<frame>_<person>.npz`, and `meta/` of the same names with the camera of each crop.

Frames count from 1. People are numbered anew in each frame, by their boxes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from instantavatar_ns.importing.linking import link_people
from instantavatar_ns.importing.result import ToolResult, make_track
from instantavatar_ns.motion.pose_archives import read_content
from instantavatar_ns.utils.errors import InputError

_KEYS = ("global_orient", "body_pose", "betas", "transl")
_ADVICE = "Give the folder that holds smplx/ and meta/, as inference.py wrote it"


def matches(folder: Path) -> bool:
    """Find out if a folder is this tool's."""
    return any((folder / "smplx").glob("*_*.npz"))


def read(folder: Path) -> ToolResult:
    """Read people, linked from frame to frame by their places.

    Raises:
        InputError: A file has another name, lacks an array or its camera, or see `make_track`.
    """
    people: dict[int, list[tuple[dict[str, Any], np.ndarray, str]]] = defaultdict(list)
    for path in sorted((folder / "smplx").glob("*_*.npz")):
        frame, _, _ = path.stem.partition("_")
        if not frame.isdecimal():
            raise InputError(path, "expected <frame>_<person>.npz, found another name", _ADVICE)
        arrays = read_content(path)
        missing = [key for key in _KEYS if key not in arrays]
        if missing:
            message = f"expected {', '.join(missing)}, found {', '.join(sorted(arrays))}"
            raise InputError(path, message, _ADVICE)
        arrays = {key: np.asarray(arrays[key], np.float64).reshape(-1) for key in _KEYS}
        matrix, image = _camera(folder / "meta" / f"{path.stem}.json")
        people[int(frame)].append((arrays, matrix, image or frame))
    frames = sorted(people)
    places = [np.stack([_place(matrix, arrays["transl"]) for arrays, matrix, _ in people[frame]]) for frame in frames]
    tracks = {}
    for index, links in enumerate(link_people(frames, places)):
        found = [people[frames[image]][row] for image, row in links]
        arrays = {key: np.stack([row[0][key] for row in found]) for key in _KEYS}
        tracks[str(index)] = make_track(
            folder,
            str(index),
            [frames[image] for image, _ in links],
            arrays,
            _ADVICE,
            names=[row[2] for row in found],
            intrinsics=np.stack([row[1] for row in found]),
        )
    return ToolResult("SMPLer-X", "SMPL-X", tracks, None, "focal and princpt of each crop, from meta/", first_frame=1)


def _camera(path: Path) -> tuple[np.ndarray, str]:
    """Camera matrix of a person's crop in pixels of the image, and the image's name without its suffix."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        (fx, fy), (cx, cy) = (np.asarray(meta[key], np.float64).reshape(2) for key in ("focal", "princpt"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"expected the crop's focal and princpt as JSON ({type(error).__name__}: {error})"
        raise InputError(path, message, _ADVICE) from error
    image = meta.get("img_path")
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), Path(image).stem if isinstance(image, str) else ""


def _place(matrix: np.ndarray, transl: np.ndarray) -> np.ndarray:
    pixel = matrix @ transl
    depth = max(float(pixel[2]), 1e-3)
    return np.array([pixel[0] / depth, pixel[1] / depth, matrix[0, 0] / depth])
