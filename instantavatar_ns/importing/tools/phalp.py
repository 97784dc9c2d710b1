"""4D-Humans and PHALP: `results/*.pkl` of joblib.

Each frame of the video, by its path, has lists with an entry for each track: `tid`, `tracked_time` (frames since the
person was last seen; then the rest is old), `smpl` (rotation matrices and betas), `camera` (the translation), and
`mask` in COCO's encoding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instantavatar_ns.body.smpl import NUM_BETAS, NUM_JOINTS
from instantavatar_ns.importing.conventions import phalp_focal
from instantavatar_ns.importing.result import ToolResult, make_track, pinhole
from instantavatar_ns.importing.run_lengths import is_run_lengths
from instantavatar_ns.utils.errors import InputError

_ADVICE = "Give the file that 4D-Humans' track.py wrote to results/"


def matches(content: Any) -> bool:
    """Find out if a file's content is this tool's."""
    if not isinstance(content, Mapping) or not content:
        return False
    return all(isinstance(frame, Mapping) and "tid" in frame for frame in content.values())


def read(path: Path, content: Mapping[str, Any]) -> ToolResult:
    """Read people who were seen, not those who were predicted.

    Args:
        path: The result's file, for errors.
        content: Frames by the paths of their images, as the module describes them.

    Raises:
        InputError: A person lacks an array, or see `make_track`.
    """
    rows: dict[str, list[tuple[int, str, Mapping[str, Any], Any, Any]]] = defaultdict(list)
    for place, (name, frame) in enumerate(content.items()):
        tracks = np.asarray(frame["tid"]).reshape(-1)
        for key in ("smpl", "camera", "tracked_time"):
            if len(tracks) and key not in frame:
                raise InputError(path, f"expected {key} of each person in {name}, found {', '.join(frame)}", _ADVICE)
        number = int(np.asarray(frame.get("time", place)))
        since = np.asarray(frame.get("tracked_time", [])).reshape(-1)
        masks = frame.get("mask", [])
        for index, track in enumerate(tracks):
            if int(since[index]) == 0:
                mask = masks[index] if isinstance(masks, Sequence) and index < len(masks) else None
                smpl = frame["smpl"][index]
                rows[str(int(track))].append((number, name, smpl, frame["camera"][index], mask))
    tracks = {}
    for track, found in rows.items():
        missing = {key for key in ("global_orient", "body_pose", "betas") for row in found if key not in row[2]}
        if missing:
            raise InputError(path, f"expected smpl of person {track} with {', '.join(sorted(missing))}", _ADVICE)
        arrays = {key: np.stack([_plain(row[2][key], size) for row in found]) for key, size in _SHAPES.items()}
        arrays["transl"] = np.stack([np.asarray(row[3], np.float64).reshape(3) for row in found])
        masks = {row[0]: row[4] for row in found if is_run_lengths(row[4])}
        names = [Path(row[1]).stem for row in found]
        tracks[track] = make_track(path, track, [row[0] for row in found], arrays, _ADVICE, names=names, masks=masks)
    words = "5000 pixels on the image padded to a square and scaled to 256"
    return ToolResult("4D-Humans", "SMPL", tracks, pinhole(phalp_focal), words, num_frames=len(content))


_SHAPES = {"global_orient": (1, 3, 3), "body_pose": (NUM_JOINTS - 1, 3, 3), "betas": (NUM_BETAS,)}


def _plain(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(value, np.float64).reshape(shape)
