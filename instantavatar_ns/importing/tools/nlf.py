"""NLF: it writes no file of its own; callers save what it returns, lists with an entry for each image.

`pose` (axis-angle), `betas` and `trans` of the people in each image, `joints3d` and `joints2d`; lengths often in
millimetres.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from instantavatar_ns.body.smpl import NUM_JOINTS
from instantavatar_ns.importing.conventions import nlf_focal
from instantavatar_ns.importing.linking import link_people
from instantavatar_ns.importing.result import Pinhole, ToolResult, make_track, pinhole
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

_FARTHEST = 100.0
"""Metres; larger numbers are millimetres."""
_MATRICES = ("intrinsic_matrix", "intrinsics", "K")
_ADVICE = "Save pose, betas and trans of every image, such as numpy.savez('nlf.npz', pose=..., betas=..., trans=...)"


def matches(content: Any) -> bool:
    """Find out if a file's content is this tool's."""
    if not isinstance(content, Mapping):
        return False
    return {"pose", "trans"} <= set(content) and bool({"joints3d", "joints2d", "vertices3d"} & set(content))


def read(path: Path, content: Mapping[str, Any]) -> ToolResult:
    """Read people, linked from image to image by their places.

    Args:
        path: The result's file, for errors.
        content: `pose`, `betas` and `trans`, with [people, size] arrays for each image; radians, and metres or
            millimetres. For the camera `intrinsic_matrix`, or `joints3d` and `joints2d`, or neither.

    Raises:
        InputError: `betas` are missing, lists differ in length, there is no person in any image, or see `make_track`.
    """
    if "betas" not in content:
        raise InputError(path, f"expected betas, found {', '.join(sorted(content))}", _ADVICE)
    count = len(content["pose"])
    for key in ("betas", "trans", "joints3d", "joints2d"):
        if key in content and len(content[key]) != count:
            message = f"expected as many images in {key} as in pose, found {len(content[key])} and {count}"
            raise InputError(path, message, _ADVICE)
    width = max((_people(pose).shape[-1] for pose in content["pose"]), default=0)
    if width == 0:
        raise InputError(path, "expected poses, found no person in any image", _ADVICE)
    arrays = {
        "pose": [_people(pose, width) for pose in content["pose"]],
        "betas": [_people(betas) for betas in content["betas"]],
        "trans": [_people(trans, 3) for trans in content["trans"]],
    }
    everyone = np.concatenate(arrays["trans"])
    unit = 1.0
    if np.nanmedian(np.linalg.norm(everyone, axis=1)) > _FARTHEST:
        unit = 0.001
        notice(path, "Its lengths are too large for metres; they are taken for millimetres.")
    arrays["trans"] = [trans * unit for trans in arrays["trans"]]
    camera, words = _camera(path, content)
    frames = [image for image in range(count) if len(arrays["pose"][image])]
    places = []
    for image in frames:
        x, y, z = arrays["trans"][image].T
        places.append(np.stack([x, y, np.ones_like(z)], axis=1) / np.maximum(z, 1e-3)[:, None])
    tracks = {}
    for index, links in enumerate(link_people(frames, places)):
        rows = {key: np.stack([values[frames[image]][row] for image, row in links]) for key, values in arrays.items()}
        tracks[str(index)] = make_track(path, str(index), [frames[image] for image, _ in links], rows, _ADVICE)
    return ToolResult("NLF", "SMPL" if width == 3 * NUM_JOINTS else "SMPL-X", tracks, camera, words, num_frames=count)


def _people(values: Any, width: int | None = None) -> Float[ndarray, "people width"]:
    """Rows of an image's people; one row that stands alone is one person's."""
    array = np.asarray(values, np.float64)
    if array.size == 0:
        return np.zeros((0, width or 0))
    if width is not None:
        return array.reshape(-1, width)
    return array.reshape(1, -1) if array.ndim == 1 else array.reshape(len(array), -1)


def _camera(path: Path, content: Mapping[str, Any]) -> tuple[Pinhole, str]:
    """The camera matrix of the file, else the one that takes its joints in space to those in the image."""
    name = next((name for name in _MATRICES if name in content), None)
    if name is not None:
        matrix = np.asarray(content[name], np.float64).reshape(-1, 3, 3)[0]
        return (lambda size: matrix), f"{name} of the file"
    if "joints3d" in content and "joints2d" in content:
        space, image = (
            np.concatenate([np.asarray(people, np.float64).reshape(-1, width) for people in content[key]])
            for key, width in (("joints3d", 3), ("joints2d", 2))
        )
        if len(space) == len(image) and len(space) > 2:
            solved = solve_pinhole(space, image)
            return (lambda size: solved), "the one that takes joints3d to joints2d"
    notice(path, "It has no intrinsic_matrix; NLF's default of 55 degrees over the image's larger side is assumed.")
    return pinhole(nlf_focal), "55 degrees over the larger side"


def solve_pinhole(space: Float[ndarray, "points 3"], image: Float[ndarray, "points 2"]) -> Float[ndarray, "3 3"]:
    """Camera matrix that takes points in the camera to pixels, by least squares.

    Args:
        space: Points in front of the camera, in its axes (x right, y down, z ahead), any unit.
        image: The same points in the image, pixels.
    """
    x, y = (space[:, :2] / space[:, 2:]).T
    ones, zeros = np.ones_like(x), np.zeros_like(x)
    rows = np.concatenate([np.stack([x, ones, zeros], axis=1), np.stack([y, zeros, ones], axis=1)])
    focal, cx, cy = np.linalg.lstsq(rows, image.T.reshape(-1), rcond=None)[0]
    return np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1.0]])
