"""The person's masks: of the tool's result, or of a folder or an array that the user gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from instantavatar_ns.data.folder import masks_in
from instantavatar_ns.data.masks import find_encoding, read_mask
from instantavatar_ns.importing.run_lengths import decode_run_lengths, is_run_lengths
from instantavatar_ns.importing.video import Video
from instantavatar_ns.utils.errors import InputError

Masks = Mapping[int, Callable[[], Float32[ndarray, "height width"]]]
"""Function that returns the mask of each frame that has one, 0 to 1, of the video's size."""
_ASPECT = 0.02


def masks_of_result(path: Path, masks: Mapping[int, Any], video: Video) -> Masks:
    """Masks that a tool stored beside its poses; empty ones are left out.

    Args:
        path: The result, for errors.
        masks: By the numbers of the frames: COCO's run lengths, or arrays that are not 0 where the person is.
        video: The video.
    """

    def decoded(value: Any) -> Float32[ndarray, "height width"]:
        mask = decode_run_lengths(path, value) if is_run_lengths(value) else np.asarray(value)
        return _fitted(path, (np.squeeze(mask) > 0).astype(np.float32), video)

    def is_shown(value: Any) -> bool:
        return is_run_lengths(value) or bool(np.any(value))

    return {frame: lambda value=value: decoded(value) for frame, value in masks.items() if is_shown(value)}


def masks_of_user(path: Path, video: Video) -> Masks:
    """Masks in a folder, one a frame of the video or named by their frames' numbers; or an array of all of them.

    Args:
        path: The folder, or one with a subfolder `masks`; the latter may be of `instant-avatar process`, which chooses
            frames of the video and lists their numbers.
        video: The video.

    Raises:
        InputError: They are missing, unreadable, or do not tell which frames they belong to.
    """
    if path.is_dir():
        files = masks_in(path / "masks" if (path / "masks").is_dir() else path)
        encoding = find_encoding(files)
        numbers = _chosen_numbers(files[0].parent.parent / "process" / "clip.json", files, video)
        numbers = _numbers(path, files, video) if numbers is None else numbers
        return {
            number: lambda file=file: _fitted(file, read_mask(file, encoding), video)
            for number, file in zip(numbers, files, strict=True)
        }
    return _masks_of_array(path, video)


def _chosen_numbers(path: Path, files: list[Path], video: Video) -> list[int] | None:
    """Numbers of the frames that `instant-avatar process` chose; None where it made no such choice."""
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))["frames"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if len(numbers) != len(files) or max(numbers) >= len(video):
        message = f"expected {len(files)} frames of {video.path}, as there are masks, found {len(numbers)}"
        raise InputError(path, message, "Give the folder of this video")
    return [int(number) for number in numbers]


def _numbers(folder: Path, files: list[Path], video: Video) -> list[int]:
    if len(files) == len(video):
        return list(range(len(files)))
    places = {name: place for place, name in enumerate(video.names or [])}
    if all(file.stem in places for file in files):
        return [places[file.stem] for file in files]
    digits = [re.findall(r"\d+", file.stem) for file in files]
    numbers = [int(found[-1]) for found in digits if found]
    if len(set(numbers)) != len(files) or max(numbers) >= len(video):
        message = f"expected a mask for each of the {len(video)} frames of {video.path}, found {len(files)}"
        raise InputError(folder, message, "Give all of them, or name them by the numbers of their frames, from 0")
    return numbers


def _masks_of_array(path: Path, video: Video) -> Masks:
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, ndarray):
            keys = [key for key in ("masks", "mask") if key in loaded.files] or loaded.files
            loaded = loaded[keys[0]]
    except (OSError, ValueError, IndexError) as error:
        message = f"expected a folder of masks, or an .npy or .npz with an array of them ({error})"
        raise InputError(path, message, "Give a folder with one mask a frame") from error
    masks = loaded.reshape(len(loaded), *loaded.shape[-2:]) if loaded.ndim == 4 and 1 in loaded.shape else loaded
    if masks.ndim != 3 or len(masks) != len(video):
        message = f"expected masks ({len(video)}, height, width), one for each frame of {video.path}, found"
        raise InputError(path, f"{message} {loaded.shape}", "Give one mask for each frame")
    half = 0.5 * float(masks.max())
    return {
        number: lambda mask=mask: _fitted(path, (mask > half).astype(np.float32), video)
        for number, mask in enumerate(masks)
        if mask.any()
    }


def _fitted(path: Path, mask: Float32[ndarray, "height width"], video: Video) -> Float32[ndarray, "rows columns"]:
    """The mask at the video's size."""
    if mask.shape == video.size:
        return mask
    height, width = video.size
    if mask.ndim != 2 or abs(mask.shape[0] / height / (mask.shape[1] / width) - 1) > _ASPECT:
        message = f"expected masks of the video's height and width {video.size}, found {mask.shape}"
        raise InputError(path, message, "Give masks of this video")
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR))
