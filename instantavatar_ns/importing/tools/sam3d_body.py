"""SAM 3D Body: an `.npz` for each image and person (`<image>_subj00.npz`), or a pickle of the lists that it returned.

The body is MHR's, not SMPL's: read are 70 keypoints in space and, where all images have them, the vertices of its mesh.
To these a body is fitted. Each image has a focal length of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from instantavatar_ns.body.smpl import NUM_BETAS, NUM_JOINTS
from instantavatar_ns.importing.linking import link_people
from instantavatar_ns.importing.result import ToolResult, Track
from instantavatar_ns.utils.errors import InputError

_SHAPES = {"pred_keypoints_3d": (70, 3), "pred_keypoints_2d": (70, 2), "pred_cam_t": (3,)}
_KEYS = (*_SHAPES, "focal_length")
_VERTICES, _VERTICES_SHAPE = "pred_vertices", (18439, 3)
_ADVICE = "Save what process_one_image returned, such as numpy.savez(f'{image}_subj{person:02d}.npz', **output)"
_HIPS = [9, 10]


def is_person(content: Any) -> bool:
    """Find out if the content is one person's of one image."""
    return isinstance(content, Mapping) and bool({"pred_keypoints_3d", "mhr_model_params"} & set(content))


def matches(content: Any) -> bool:
    """Find out if a file's content is this tool's."""
    return is_person(content) or any(map(is_person, _people(next(iter(_images(content).values()), None))))


def read(path: Path, content: Any) -> ToolResult:
    """Read a file: one person's, or the people of images in order or by name.

    Args:
        path: The result's file, for errors.
        content: One person's dictionary, or the people of images as a list or by the images' names.

    Raises:
        InputError: An array is missing, has another shape or holds NaN, or an image's name has no number.
    """
    return _read(path, {name: _people(people) for name, people in _images(content).items()})


def read_folder(folder: Path, contents: Mapping[str, Any]) -> ToolResult:
    """Read `.npz` files of people by their names.

    Args:
        folder: For errors.
        contents: Each file's person, by its name without the suffix: `<image>_subj00`.

    Raises:
        InputError: See `read`.
    """
    images: dict[str, list[Any]] = defaultdict(list)
    for name, person in contents.items():
        images[name.rpartition("_subj")[0] or name].append(person)
    return _read(folder, images)


def _images(content: Any) -> dict[str, Any]:
    """People of each image by its name; images without a name are numbered from 0."""
    if is_person(content):
        return {"0": [content]}
    if isinstance(content, Mapping):
        return {Path(str(name)).stem: people for name, people in content.items()}
    return {str(number): people for number, people in enumerate(content if isinstance(content, list) else [])}


def _people(people: Any) -> list[Any]:
    return [people] if is_person(people) else list(people) if isinstance(people, list) else []


def _read(path: Path, images: Mapping[str, list[Any]]) -> ToolResult:
    numbered = sorted((_number(path, name), name) for name, people in images.items() if people)
    people = {name: [_checked(path, name, person) for person in images[name]] for _, name in numbered}
    places = [np.stack([_place(person) for person in people[name]]) for _, name in numbered]
    tracks = {}
    for index, links in enumerate(link_people([number for number, _ in numbered], places)):
        found = [people[numbered[image][1]][row] for image, row in links]
        frames = np.array([numbered[image][0] for image, _ in links])
        masks = {
            int(frame): person["mask"].squeeze()
            for frame, person in zip(frames, found, strict=True)
            if isinstance(person["mask"], np.ndarray) and person["mask"].ndim >= 2
        }
        tracks[str(index)] = Track(
            frames=frames,
            thetas=np.zeros((len(found), 3 * NUM_JOINTS)),
            transl=np.stack([person["pred_cam_t"] for person in found]),
            betas=np.zeros((len(found), NUM_BETAS)),
            names=[numbered[image][1] for image, _ in links],
            intrinsics=np.stack([_matrix(person) for person in found]),
            masks=masks,
            keypoints=np.stack([person["pred_keypoints_3d"] + person["pred_cam_t"] for person in found]),
            vertices=_vertices(found),
        )
    return ToolResult("SAM 3D Body", "MHR", tracks, None, "focal_length of each image")


def _number(path: Path, name: str) -> int:
    digits = "".join(character if character.isdigit() else " " for character in name).split()
    if not digits:
        raise InputError(path, f"expected images with numbers in their names, found {name}", _ADVICE)
    return int(digits[-1])


def _checked(path: Path, name: str, person: Mapping[str, Any]) -> dict[str, Any]:
    missing = [key for key in _KEYS if key not in person]
    if missing:
        message = f"expected {', '.join(missing)} in {name}, found {', '.join(sorted(person))}"
        raise InputError(path, message, _ADVICE)
    arrays: dict[str, np.ndarray] = {key: np.asarray(person[key], np.float64) for key in _KEYS}
    shapes: dict[str, tuple[int, ...]] = dict(_SHAPES)
    if person.get(_VERTICES) is not None:
        arrays[_VERTICES] = np.asarray(person[_VERTICES], np.float32)
        shapes[_VERTICES] = _VERTICES_SHAPE
    for key, shape in shapes.items():
        if arrays[key].size != np.prod(shape):
            raise InputError(path, f"expected {key} of shape {shape} in {name}, found {arrays[key].shape}", _ADVICE)
        arrays[key] = arrays[key].reshape(shape)
    for key, values in arrays.items():
        if not np.isfinite(values).all():
            raise InputError(path, f"expected finite numbers, found NaN or infinity in {key} of {name}", _ADVICE)
    return {**arrays, "mask": person.get("mask")}


def _vertices(people: list[dict[str, Any]]) -> np.ndarray | None:
    """MHR's vertices in the camera; None unless all images have them."""
    if not all(_VERTICES in person for person in people):
        return None
    return np.stack([person[_VERTICES] + person["pred_cam_t"].astype(np.float32) for person in people])


def _matrix(person: Mapping[str, Any]) -> np.ndarray:
    """Camera matrix; the principal point is the one that takes the keypoints in space to those in the image."""
    focal = float(person["focal_length"].reshape(-1)[0])
    points = person["pred_keypoints_3d"] + person["pred_cam_t"]
    center = np.median(person["pred_keypoints_2d"] - focal * points[:, :2] / points[:, 2:], axis=0)
    return np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1.0]])


def _place(person: Mapping[str, Any]) -> np.ndarray:
    depth = float((person["pred_keypoints_3d"] + person["pred_cam_t"])[_HIPS, 2].mean())
    x, y = person["pred_keypoints_2d"][_HIPS].mean(axis=0)
    return np.array([x, y, float(person["focal_length"].reshape(-1)[0]) / max(depth, 1e-3)])
