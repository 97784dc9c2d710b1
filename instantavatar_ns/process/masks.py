"""The person's mask in all frames: the network's, the background's and the image's edges together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from instantavatar_ns.data.folder import list_images, list_pictures
from instantavatar_ns.data.images import read_rgb
from instantavatar_ns.data.masks import find_encoding, read_mask
from instantavatar_ns.process.frames import ChosenFrames
from instantavatar_ns.process.landmarks import network_mask, pick_rows
from instantavatar_ns.process.plate import STILL, Plate, camera_motion, follow_background, make_plate
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import written_whole

_MAYBE = -3.0  # log-odds from which on a pixel may be of the person, for the background
_CERTAIN = 8.0
_PLATE_FRAMES, _MOTION_FRAMES = 48, 16
_FOLLOWED_HEIGHT = 540  # of the pictures in which a moving camera's background is followed, at most
# Differences from the background, in units of the noise, that say nothing; what one more says; the most that they say.
_EVEN, _SLOPE, _MOST = 8.0, 0.5, 3.0
_EDGE_REACH, _EDGE_EPS = 1 / 140, 1e-3  # of the person's height; variance of brightness that is an edge
_LARGE_PART = 0.05  # of the person: smaller parts apart from the largest are no limbs


class CameraFacts(NamedTuple):
    """Motion of a clip's camera.

    Attributes:
        motion: How far the background moves in the clip, pixels; None where that cannot be measured.
        is_still: The camera stands still, and the background was used.
        is_followed: It moves, and the background was used all the same, as its motion could be followed.
    """

    motion: float | None
    is_still: bool
    is_followed: bool


def make_masks(folder: Path, progress: Callable[[float], None]) -> CameraFacts:
    """Write `masks/`, which appears whole.

    Args:
        folder: With `images/` and the network's results.
        progress: Called with the share that is done.
    """
    clip = ChosenFrames.read(folder)
    paths, size = list_images(folder), (clip.height, clip.width)
    spread = np.linspace(0, len(paths) - 1, min(_PLATE_FRAMES, len(paths))).round().astype(int)
    images = [read_rgb(paths[index], size) for index in spread]
    people = [network_mask(folder, int(index), size) > _MAYBE for index in spread]
    every = max(len(spread) // _MOTION_FRAMES, 1)
    motion = camera_motion(images[::every], people[::every])
    is_still = motion * 540 / clip.height <= STILL
    to_plate = None if is_still else _follow(folder, paths, size)
    if to_plate is not None:
        for row, index in enumerate(spread):  # in their places: all images twice would fill the memory
            images[row], people[row] = _seen_by_middle(size, images[row], people[row], to_plate[index])
    plate = make_plate(images, people) if is_still or to_plate is not None else None
    del images, people
    with written_whole(folder / "masks") as folder_of_masks:
        folder_of_masks.mkdir()
        for index, path in enumerate(paths):
            seen = plate if plate is None or to_plate is None else plate.seen_from(to_plate[index])
            mask = refine(read_rgb(path, size), network_mask(folder, index, size), seen)
            cv2.imwrite(str(folder_of_masks / f"{index:05d}.png"), np.where(mask, np.uint8(255), np.uint8(0)))
            progress((index + 1) / len(paths))
    return CameraFacts(motion if np.isfinite(motion) else None, is_still, to_plate is not None)


def _follow(folder: Path, paths: list[Path], size: tuple[int, int]) -> Float[np.ndarray, "frames 3 3"] | None:
    """Homographies from each frame's pixels to the middle one's; None where the background does not follow them."""
    scale = min(_FOLLOWED_HEIGHT / size[0], 1.0)
    small = round(size[0] * scale), round(size[1] * scale)
    greys, people = [], []
    for index, path in enumerate(paths):
        grey = cv2.cvtColor(read_rgb(path, size), cv2.COLOR_RGB2GRAY)
        greys.append(np.asarray(cv2.resize(grey, small[::-1], interpolation=cv2.INTER_AREA)))
        people.append(network_mask(folder, index, small) > _MAYBE)
    to_middle, left = follow_background(greys, people)
    if left * 540 / small[0] > STILL:
        return None
    rows, columns = (few / many for few, many in zip(small, size, strict=True))
    # Of pixels whose centers are at whole numbers.
    reduced = np.array([[columns, 0, (columns - 1) / 2], [0, rows, (rows - 1) / 2], [0, 0, 1]])
    return np.linalg.inv(reduced) @ to_middle @ reduced


def _seen_by_middle(
    size: tuple[int, int],
    image: UInt8[np.ndarray, "height width 3"],
    person: Bool[np.ndarray, "height width"],
    to_middle: Float[np.ndarray, "3 3"],
) -> tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """Frame as the middle one would see it, and what of it is the person or lies outside."""
    shown = np.asarray(cv2.warpPerspective(image, to_middle, size[::-1]))
    hidden = cv2.warpPerspective(person.astype(np.uint8), to_middle, size[::-1], borderValue=1)  # pyright: ignore
    return shown, np.asarray(hidden) > 0


def take_masks(folder: Path, given: Path, progress: Callable[[float], None]) -> None:
    """Write `masks/` from a user's own.

    Args:
        folder: With `images/`.
        given: Folder of masks, one for each chosen frame or one for each frame of the source.
        progress: Called with the share that is done.

    Raises:
        InputError: Their number or size does not fit, or one is unreadable.
    """
    clip = ChosenFrames.read(folder)
    paths = list_pictures(given)
    rows = pick_rows(given, "masks", len(paths), [list(range(len(clip.frames))), clip.frames])
    encoding = find_encoding(paths)
    with written_whole(folder / "masks") as folder_of_masks:
        folder_of_masks.mkdir()
        for index, row in enumerate(rows):
            mask = read_mask(paths[row], encoding)
            if abs(mask.shape[1] / mask.shape[0] - clip.width / clip.height) > 0.02:
                shape = f"({clip.height} x {clip.width})"
                message = f"expected a mask of the shape of the frames {shape}, found {mask.shape}"
                raise InputError(paths[row], message, "Make the masks of the upright frames of this clip")
            mask = cv2.resize(mask, (clip.width, clip.height), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(folder_of_masks / f"{index:05d}.png"), np.where(mask > 0.5, np.uint8(255), np.uint8(0)))
            progress((index + 1) / len(rows))


def read_masks(folder: Path) -> Bool[np.ndarray, "frames height width"]:
    """Read the masks that one of these functions wrote."""
    paths = sorted((folder / "masks").glob("*.png"))
    return np.stack([np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) > 127 for path in paths])


def refine(
    image: UInt8[np.ndarray, "height width 3"],
    log_odds: Float32[np.ndarray, "height width"],
    plate: Plate | None,
) -> Bool[np.ndarray, "height width"]:
    """Return the person's mask: the network's, corrected by the background and drawn to the image's edges.

    Args:
        image: The frame.
        log_odds: The network's, of its pixels being of the person.
        plate: The background, where the camera stands still.
    """
    maybe = log_odds > _MAYBE
    if not maybe.any():
        return np.zeros(image.shape[:2], bool)
    rows, columns = np.flatnonzero(maybe.any(axis=1)), np.flatnonzero(maybe.any(axis=0))
    reach = max(round(_EDGE_REACH * (rows[-1] - rows[0])), 2)
    border = 4 * reach
    part = (
        slice(max(rows[0] - border, 0), rows[-1] + border + 1),
        slice(max(columns[0] - border, 0), columns[-1] + border + 1),
    )
    evidence = log_odds.clip(-_CERTAIN, _CERTAIN)
    if plate is not None:
        wide = cv2.dilate(maybe.astype(np.uint8), np.ones((2 * border + 1, 2 * border + 1), np.uint8)) > 0
        difference, _ = plate.difference(image, wide)
        evidence = evidence + np.where(plate.known, ((difference - _EVEN) * _SLOPE).clip(-_MOST, _MOST), 0)
    probability = (1 / (1 + np.exp(-evidence[part]))).astype(np.float32)
    grey = cv2.cvtColor(np.ascontiguousarray(image[part]), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    mask = np.zeros(image.shape[:2], bool)
    mask[part] = _guided(grey, probability, reach) > 0.5
    return _person_only(mask)


def _guided(
    guide: Float32[np.ndarray, "height width"], values: Float32[np.ndarray, "height width"], reach: int
) -> Float32[np.ndarray, "height width"]:
    """Smooth values along the edges of another image (guided filter, He et al. 2010)."""

    def mean(image: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.blur(image, (2 * reach + 1, 2 * reach + 1)))

    guide_mean, value_mean = mean(guide), mean(values)
    slope = (mean(guide * values) - guide_mean * value_mean) / (mean(guide * guide) - guide_mean**2 + _EDGE_EPS)
    return mean(slope) * guide + mean(value_mean - slope * guide_mean)


def _person_only(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Leave out specks beside the person, and close pinholes in them."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count > 1:
        areas = stats[1:, cv2.CC_STAT_AREA]
        mask = np.isin(labels, 1 + np.flatnonzero(areas >= _LARGE_PART * areas.max()))
    smallest = 2e-4 * mask.sum()
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    holes = 1 + np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] < smallest)
    return mask | np.isin(labels, holes)
