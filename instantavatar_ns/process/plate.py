"""The background of a clip: what each pixel shows when the person is elsewhere.

A camera that is held in the hand turns and sways. Pictures of what is far off then differ by homographies, so the
background is that of the middle frame, and is seen from the others through these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

STILL = 1.0
"""Pixels by which the background may move in a clip for its camera to stand still, at an image height of 540.

As many may be left of its motion where the camera moves."""
_FEWEST_POINTS = 12
_OUTLIER = 1.5  # pixels from where a homography takes the others: a point of something else that moves
_WINDOW = 21  # pixels, that are compared around a point: OpenCV's default
_DETAIL = 8.0  # pixels: larger changes of brightness are the light's
_MOST_POINTS = 80  # per cent of the points, which have to follow a homography: what is near moves otherwise
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

    def seen_from(self, to_plate: Float[np.ndarray, "3 3"]) -> Plate:
        """Return the background as another frame sees it.

        Args:
            to_plate: Homography from the frame's pixels to the plate's.
        """
        size, away = self.known.shape[::-1], np.linalg.inv(to_plate)
        known = cv2.warpPerspective(self.known.astype(np.uint8), away, size, flags=cv2.INTER_NEAREST) > 0
        return Plate(np.asarray(cv2.warpPerspective(self.colors, away, size)), known)

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
    points = _background_points(greys[middle], people[middle])
    moved = []
    for index in [index for index in range(len(greys)) if index != middle]:
        there, kept = _followed(greys[middle], greys[index], points, points, people[index])
        shift = np.linalg.norm(there[kept] - points[kept], axis=1)
        moved.append(float(np.median(shift)) if kept.sum() >= _FEWEST_POINTS else float("inf"))
    return float(np.percentile(moved, 90, method="lower")) if moved else 0.0


def follow_background(
    greys: Sequence[UInt8[np.ndarray, "height width"]], people: Sequence[Bool[np.ndarray, "height width"]]
) -> tuple[Float[np.ndarray, "frames 3 3"], float]:
    """Find the homography of each frame's background to that of the middle frame.

    Points of the middle frame are searched for where the neighbour's homography takes them: from frame to frame a
    camera moves little.

    Args:
        greys: All frames.
        people: Where the person may be in each of them.

    Returns:
        From each frame's pixels to the middle one's; and how many pixels points are off then, at most, in four fifths
        of them and nine tenths of the frames: infinity where the background cannot be followed.
    """
    middle = len(greys) // 2
    around = np.ones((_WINDOW, _WINDOW), np.uint8)  # what moves in a point's window takes the point along
    people = [cv2.dilate(person.astype(np.uint8), around) > 0 for person in people]
    greys = [_details(grey) for grey in greys]
    points = _background_points(greys[middle], people[middle])
    to_middle, left = np.tile(np.eye(3), (len(greys), 1, 1)), []
    if len(points) < _FEWEST_POINTS:
        return to_middle, float("inf")
    for step in (1, -1):
        for index in range(middle + step, len(greys) if step > 0 else -1, step):
            away = np.linalg.inv(to_middle[index - step])
            guess = cv2.perspectiveTransform(points[:, None], away)[:, 0].astype(np.float32)
            there, kept = _followed(greys[middle], greys[index], points, guess, people[index])
            if kept.sum() < _FEWEST_POINTS:
                return to_middle, float("inf")
            found, _ = cv2.findHomography(there[kept], points[kept], cv2.RANSAC, _OUTLIER)
            if found is None:
                return to_middle, float("inf")
            to_middle[index] = found
            off = cv2.perspectiveTransform(there[kept][:, None], found)[:, 0] - points[kept]
            left.append(float(np.percentile(np.linalg.norm(off, axis=1), _MOST_POINTS)))
    return to_middle, float(np.percentile(left, 90, method="lower")) if left else 0.0


def _details(grey: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    """Return an image without its brightness, whose changes would pass for motion, on a grey of 128."""
    values = grey.astype(np.float32)
    return (values - cv2.GaussianBlur(values, (0, 0), _DETAIL) + 128).round().clip(0, 255).astype(np.uint8)


def _background_points(
    grey: UInt8[np.ndarray, "height width"], person: Bool[np.ndarray, "height width"]
) -> Float32[np.ndarray, "points 2"]:
    """Points of the background that can be found again."""
    points = cv2.goodFeaturesToTrack(grey, 300, 0.01, 8, mask=(~person).astype(np.uint8))
    return np.zeros((0, 2), np.float32) if points is None else points[:, 0]


def _followed(
    first: UInt8[np.ndarray, "height width"],
    second: UInt8[np.ndarray, "height width"],
    points: Float32[np.ndarray, "points 2"],
    guess: Float32[np.ndarray, "points 2"],
    person: Bool[np.ndarray, "height width"],
) -> tuple[Float32[np.ndarray, "points 2"], Bool[np.ndarray, " points"]]:
    """Places of points of the first image in the second, and which were found: there and back again, off the person."""
    if not len(points):
        return points, np.zeros(0, bool)
    start = cv2.OPTFLOW_USE_INITIAL_FLOW
    there, good, _ = cv2.calcOpticalFlowPyrLK(first, second, points, guess.copy(), flags=start)
    back, good_back, _ = cv2.calcOpticalFlowPyrLK(second, first, there, points.copy(), flags=start)
    kept = (good[:, 0] > 0) & (good_back[:, 0] > 0) & (np.abs(back - points).max(axis=1) < 0.5)
    at = np.round(there).astype(int)
    kept &= (at >= 0).all(axis=1) & (at < np.array(second.shape[::-1])).all(axis=1)
    kept[kept] &= ~person[at[kept, 1], at[kept, 0]]
    return there, kept


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
