"""Everything that a fit is made to: the frames' times, landmarks, masks, and the camera."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from instantavatar_ns.data.folder import list_images, list_masks
from instantavatar_ns.process.body_landmarks import NUM_LANDMARKS
from instantavatar_ns.process.camera import Camera, choose_camera
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.npz import read_npz

_FEWEST = 2
_AGAIN = "Make frames, masks and landmarks again with instant-avatar process"


class Observations(NamedTuple):
    """Of all frames of a clip.

    Attributes:
        times: Seconds, ascending.
        pixels: Landmarks in pixels, the center of the top-left pixel at (0, 0).
        visibility: Of the landmarks, 0 to 1.
        world: Landmarks as the network guesses them in space, metres, in the camera's axes.
        found: Frames that have landmarks.
        masks: The person.
        camera: That took the frames.
    """

    times: Float[ndarray, " frames"]
    pixels: Float[ndarray, "frames 33 2"]
    visibility: Float[ndarray, "frames 33"]
    world: Float[ndarray, "frames 33 3"]
    found: Bool[ndarray, " frames"]
    masks: UInt8[ndarray, "frames height width"]
    camera: Camera


def read_observations(folder: Path, focal: float | None) -> Observations:
    """Read what the first stages wrote into a folder.

    Args:
        folder: With `images/`, `masks/`, `process/clip.json` and `process/landmarks.npz`.
        focal: Focal length in pixels of the images, None where the user gave none.

    Raises:
        InputError: Something is missing, or of other frames than the rest; or there are landmarks in too few frames.
    """
    clip = _read_clip(folder / "process" / "clip.json")
    times = np.asarray(clip["times"], dtype=np.float64)
    width, height = int(clip["width"]), int(clip["height"])
    path = folder / "process" / "landmarks.npz"
    arrays = read_npz(path, "landmarks", _AGAIN)
    count = len(times)
    shapes = {
        "pixels": (count, NUM_LANDMARKS, 2),
        "visibility": (count, NUM_LANDMARKS),
        "world": (count, NUM_LANDMARKS, 3),
        "found": (count,),
    }
    for name, shape in shapes.items():
        found = arrays[name].shape if name in arrays else "none"
        if found != shape:
            raise InputError(path, f"expected {name} of shape {shape}, found {found}", _AGAIN)
    found = arrays["found"].astype(bool)
    if found.sum() < _FEWEST:
        message = f"expected landmarks of a person in {_FEWEST} frames or more, found them in {found.sum()} of {count}"
        raise InputError(path, message, "Film one person from head to feet, well lit, large in the picture")
    pixels, visibility, world = (np.asarray(arrays[name], np.float64) for name in ("pixels", "visibility", "world"))
    if not all(np.isfinite(values[found]).all() for values in (pixels, visibility, world)):
        raise InputError(path, "expected finite numbers where a person was found, found NaN or infinity", _AGAIN)
    masks = _read_masks(folder, count, (height, width))
    camera = choose_camera(width, height, focal, clip.get("focal"))
    return Observations(times, pixels, visibility, world, found, masks, camera)


def _read_clip(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(path, "expected the frames of a clip, found no such file", _AGAIN)
    try:
        clip = json.loads(path.read_text(encoding="utf8"))
        times = np.asarray(clip["times"], dtype=np.float64)
        size = int(clip["width"]), int(clip["height"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(path, f"expected times, width and height of a clip's frames ({error!r})", _AGAIN) from error
    if times.ndim != 1 or (np.diff(times) <= 0).any() or min(size) < 1:
        raise InputError(path, "expected frames of some size, their times in ascending order, found others", _AGAIN)
    return clip


def _read_masks(folder: Path, count: int, size: tuple[int, int]) -> UInt8[ndarray, "frames height width"]:
    paths = list_masks(folder, list_images(folder))
    if len(paths) != count:
        message = f"expected {count} masks, as many as clip.json has frames, found {len(paths)}"
        raise InputError(folder / "masks", message, _AGAIN)
    masks = []
    for path in paths:
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if mask is None or mask.shape != size:
            found = "none that can be read" if mask is None else f"{mask.shape[1]}x{mask.shape[0]}"
            raise InputError(path, f"expected a mask of {size[1]}x{size[0]}, found {found}", _AGAIN)
        masks.append(mask)
    return np.stack(masks)
