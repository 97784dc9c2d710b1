"""The background of a clip whose camera stands still: what each pixel shows when the person is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

STILL = 1.0
"""Pixels by which the background may move in a clip for its camera to stand still, at an image height of 540."""
_FEWEST_POINTS = 12
_LEAST_OFTEN = 0.05  # share of the frames that have to show a pixel's background
_NEAR = 0.01  # of the image's longer side: pixels nearer to the person do not count as background
_HIDDEN = 256  # in place of a color that is the person's; sorts behind all colors
_SHADOW = 0.75  # of the light that is left in a shadow


@dataclass(frozen=True)
class Plate:
    """The background.

    Attributes:
        colors: RGB, 0 to 255.
        known: Pixels at which some frames show it.
    """

    colors: Float32[np.ndarray, "height width 3"]
    known: Bool[np.ndarray, "height width"]

    def difference(
        self, image: UInt8[np.ndarray, "height width 3"], person: Bool[np.ndarray, "height width"]
    ) -> tuple[Float32[np.ndarray, "height width"], float]:
        """Compare an image with the background, whose brightness may have changed and on which a shadow may lie.

        Args:
            image: A frame.
            person: Where the person may be.

        Returns:
            The difference in units of the image's noise, and that noise, in grey levels.
        """
        around = self.known & ~person
        values = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.7)
        if not around.any():
            return np.zeros(image.shape[:2], np.float32), 0.0
        gain = np.median(values[around] / np.maximum(self.colors[around], 8), axis=0).astype(np.float32)
        background = self.colors * gain
        shade = (values * background).sum(axis=2) / np.maximum((background * background).sum(axis=2), 1)
        noise = 1.4826 * float(np.median(np.abs(image[around].astype(np.float32) - background[around])))
        noise = max(noise, 0.5)  # flat areas of a strongly compressed video have none
        rest = values - background * shade.clip(_SHADOW, 1)[..., None]
        return np.sqrt((rest * rest).sum(axis=2)) / np.float32(noise), noise


def make_plate(
    images: Sequence[UInt8[np.ndarray, "height width 3"]], people: Sequence[Bool[np.ndarray, "height width"]]
) -> Plate:
    """Take the median of what is not the person.

    Args:
        images: Some frames, spread over the clip.
        people: Where the person may be in each of them.
    """
    reach = 2 * max(round(_NEAR * max(images[0].shape[:2])), 1) + 1
    hidden = np.stack([cv2.dilate(person.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0 for person in people])
    counts = (~hidden).sum(axis=0)
    colors = np.empty((*counts.shape, 3), np.float32)
    # A row of pixels at a time: all frames at once would fill the memory.
    for row, count in enumerate(counts):
        values = np.stack([image[row] for image in images]).astype(np.int16)
        values[hidden[:, row]] = _HIDDEN
        values.sort(axis=0)
        middle = [np.clip(place, 0, len(images) - 1)[None, :, None] for place in ((count - 1) // 2, count // 2)]
        colors[row] = np.mean([np.take_along_axis(values, place, axis=0)[0] for place in middle], axis=0)
    return Plate(colors, counts >= max(2, _LEAST_OFTEN * len(images)))


def camera_motion(
    images: Sequence[UInt8[np.ndarray, "height width 3"]], people: Sequence[Bool[np.ndarray, "height width"]]
) -> float:
    """Measure how far the background moves between a clip's middle frame and its other frames.

    Args:
        images: Some frames, spread over the clip.
        people: Where the person may be in each of them.

    Returns:
        The 90th percentile over the frames of the background's median motion, pixels; infinity where the background
        cannot be followed.
    """
    middle = len(images) // 2
    greys = _equally_bright([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images], people, middle)
    free = (~people[middle]).astype(np.uint8)
    points = cv2.goodFeaturesToTrack(greys[middle], 300, 0.01, 8, mask=free)
    if points is None or len(points) < _FEWEST_POINTS:
        return float("inf")
    moved = []
    for index, grey in enumerate(greys):
        if index == middle:
            continue
        there, good, _ = cv2.calcOpticalFlowPyrLK(greys[middle], grey, points, np.empty_like(points))
        back, good_back, _ = cv2.calcOpticalFlowPyrLK(grey, greys[middle], there, np.empty_like(points))
        kept = (good[:, 0] > 0) & (good_back[:, 0] > 0) & (np.abs(back - points).max(axis=(1, 2)) < 0.5)
        at = np.round(there[:, 0]).astype(int)
        inside = (at >= 0).all(axis=1) & (at < np.array(grey.shape[::-1])).all(axis=1)
        kept &= inside
        kept[kept] &= ~people[index][at[kept, 1], at[kept, 0]]
        shift = np.linalg.norm(there[kept] - points[kept], axis=-1)
        moved.append(float(np.median(shift)) if kept.sum() >= _FEWEST_POINTS else float("inf"))
    return float(np.percentile(moved, 90, method="lower")) if moved else 0.0


def _equally_bright(
    greys: Sequence[UInt8[np.ndarray, "height width"]], people: Sequence[Bool[np.ndarray, "height width"]], middle: int
) -> list[UInt8[np.ndarray, "height width"]]:
    """Give all backgrounds the brightness of the middle frame's: a change of exposure would pass for motion."""
    result = []
    for grey, person in zip(greys, people, strict=True):
        shared = ~(person | people[middle])
        gain = np.median(greys[middle][shared] / np.maximum(grey[shared], 8.0)) if shared.any() else 1.0
        result.append((grey * gain).round().clip(0, 255).astype(np.uint8))
    return result
