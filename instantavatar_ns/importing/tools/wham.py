"""WHAM: `wham_output.pkl` of joblib, with arrays of each person: poses in the camera and in the world."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instantavatar_ns.importing.conventions import diagonal_focal
from instantavatar_ns.importing.result import Space, ToolResult, make_track, pinhole
from instantavatar_ns.utils.errors import InputError

_ADVICE = "Give wham_output.pkl as WHAM's demo wrote it (--save_pkl)"


def matches(content: Any) -> bool:
    """Find out if a file's content is this tool's."""
    if not isinstance(content, Mapping) or not content:
        return False
    return all(
        isinstance(person, Mapping) and ("pose_world" in person or {"pose", "frame_ids"} <= set(person))
        for person in content.values()
    )


def read(path: Path, content: Mapping[str, Any], space: Space = "camera") -> ToolResult:
    """Read the poses in the camera, or in the world where they are wanted and all people have them.

    Args:
        path: The result's file, for errors.
        content: `pose`, `trans`, `betas` and `frame_ids` of each person, by its name; radians and metres. In the world
            `pose_world` and `trans_world` stand for the first two, and rows without `frame_ids` follow each other.
        space: Which poses to prefer.

    Raises:
        InputError: An array is missing, or see `make_track`.
    """
    if not all({"pose_world", "trans_world"} <= set(person) for person in content.values()):
        space = "camera"
    tracks = {}
    for name, person in content.items():
        if space == "world":
            rows = range(len(person["pose_world"]))
            person = {"frame_ids": rows, **person, "pose": person["pose_world"], "trans": person["trans_world"]}
        missing = [key for key in ("pose", "trans", "betas", "frame_ids") if key not in person]
        if missing:
            message = f"expected {', '.join(missing)} of person {name}, found {', '.join(sorted(person))}"
            raise InputError(path, message, _ADVICE)
        arrays = {key: person[key] for key in ("pose", "trans", "betas")}
        tracks[name] = make_track(path, name, person["frame_ids"], arrays, _ADVICE)
    words = "the image's diagonal in pixels"
    return ToolResult("WHAM", "SMPL", tracks, pinhole(diagonal_focal), words, space=space)
