"""ROMP (simple_romp): one `.npz` for each image, or `video_results.npz`.

A frame holds arrays with a row for each person: `smpl_thetas`, `smpl_betas`, `cam_trans`, and `track_ids` where people
were tracked. `video_results.npz` holds all frames as `results`, by the names of their images, and what was tracked as
`sequence_results`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from instantavatar_ns.importing.conventions import romp_focal
from instantavatar_ns.importing.linking import link_people
from instantavatar_ns.importing.result import ToolResult, Track, make_track, pinhole
from instantavatar_ns.utils.errors import InputError

_ROTATIONS = ("smpl_thetas", "global_orient", "body_pose")
_KEYS = (*_ROTATIONS, "cam_trans", "smpl_betas")
_ADVICE = "Run simple_romp 1.1 or later, which writes smpl_thetas, smpl_betas and cam_trans"
_FOCAL = 443.4


def is_frame(content: Any) -> bool:
    """Find out if the content is that of one image's file."""
    frame = content.get("results") if isinstance(content, Mapping) else None
    return isinstance(frame, Mapping) and bool({"cam_trans", "smpl_thetas", "cam", "params"} & set(frame))


def is_video(content: Any) -> bool:
    """Find out if the content is that of `video_results.npz`."""
    frames = content.get("results") if isinstance(content, Mapping) else None
    return isinstance(frames, Mapping) and any(is_frame({"results": frame}) for frame in frames.values())


def read_video(path: Path, content: Mapping[str, Any]) -> ToolResult:
    """Read `video_results.npz`.

    Args:
        path: The result's file, for errors.
        content: `results`, the people of each image by its name, and `sequence_results`, where people were tracked.

    Raises:
        InputError: A person lacks frames or an array, an image's name has no number, or see `make_track`.
    """
    names = list(content["results"])
    tracked = content.get("sequence_results")
    if not isinstance(tracked, Mapping) or not tracked:
        return read_frames(path, dict(content["results"]))
    tracks = {}
    for name, rows in tracked.items():
        if "frame_id" not in rows:
            raise InputError(path, f"expected the frames of person {name}, found no frame_id", _ADVICE)
        places = np.asarray(rows["frame_id"]).astype(int).reshape(-1)
        tracks[name] = _track(path, name, [names[int(place)] for place in places], rows)
    return _result(tracks)


def read_frames(path: Path, frames: Mapping[str, Any]) -> ToolResult:
    """Read images' people.

    Args:
        path: For errors.
        frames: The people of each image, by its name.
    """
    images = sorted(((_number(path, name), name) for name in frames), key=lambda image: image[0])
    people: dict[str, list[tuple[str, int]]] = defaultdict(list)
    if all("track_ids" in frames[name] for _, name in images):
        for _, name in images:
            for row, track in enumerate(np.asarray(frames[name]["track_ids"]).reshape(-1)):
                people[str(int(track))].append((name, row))
    else:
        places = [_places(path, name, frames[name]) for _, name in images]
        for index, links in enumerate(link_people([number for number, _ in images], places)):
            people[str(index)] = [(images[image][1], row) for image, row in links]
    tracks = {}
    for track, links in people.items():
        keys = [key for key in _KEYS if all(key in frames[name] for name, _ in links)]
        rows = {key: np.stack([np.asarray(frames[name][key])[row] for name, row in links]) for key in keys}
        tracks[track] = _track(path, track, [name for name, _ in links], rows)
    return _result(tracks)


def _track(path: Path, name: str, images: list[str], rows: Mapping[str, Any]) -> Track | None:
    arrays = {key: rows[key] for key in _KEYS if key in rows}
    if not any(key in arrays for key in _ROTATIONS):
        found = ", ".join(sorted(rows))
        raise InputError(path, f"expected smpl_thetas of person {name}, found {found}", _ADVICE)
    if "cam_trans" in arrays:
        # Where ROMP finds no place, it writes -1 three times.
        found = (np.asarray(arrays["cam_trans"]).reshape(len(images), -1) != -1).any(axis=1)
        arrays = {key: np.asarray(values)[found] for key, values in arrays.items()}
        images = [image for image, is_found in zip(images, found, strict=True) if is_found]
        if not images:
            return None
    numbers = [_number(path, image) for image in images]
    return make_track(path, name, numbers, arrays, _ADVICE, names=[Path(image).stem for image in images])


def _places(path: Path, name: str, frame: Mapping[str, Any]) -> np.ndarray:
    """Places of people in the square image, and pixels of a metre there."""
    if "cam_trans" not in frame:
        raise InputError(path, f"expected cam_trans in {name}, found {', '.join(sorted(frame))}", _ADVICE)
    x, y, z = np.asarray(frame["cam_trans"], np.float64).reshape(-1, 3).T
    return np.stack([x, y, np.ones_like(z)], axis=1) * (_FOCAL / np.maximum(z, 1e-3))[:, None]


def _number(path: Path, name: str) -> int:
    digits = "".join(character if character.isdigit() else " " for character in Path(name).stem).split()
    if not digits:
        message = f"expected images with numbers in their names, found {name}"
        raise InputError(path, message, "Run the tool on a video, or on a folder of numbered images")
    return int(digits[-1])


def _result(found: Mapping[str, Track | None]) -> ToolResult:
    tracks = {name: track for name, track in found.items() if track is not None}
    words = "443.4 pixels on the image padded to a square and scaled to 512"
    return ToolResult("ROMP", "SMPL", tracks, pinhole(romp_focal), words)
