"""MediaPipe's pose network: a person's landmarks and mask in an upright square of a picture, run by OpenCV.

The network was trained by the authors of BlazePose (https://arxiv.org/abs/2006.10204). It looks at a square
of 256 x 256 pixels in which one person stands upright, and says where the next square should be: that is how a person
is followed from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from instantavatar_ns.utils.errors import InputError

NUM_LANDMARKS = 33
NETWORK = Path(__file__).with_name("pose_landmark_heavy.tflite")
LANDMARK_NAMES = (
    "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer left_ear right_ear "
    "mouth_left mouth_right left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_pinky "
    "right_pinky left_index right_index left_thumb right_thumb left_hip right_hip left_knee right_knee left_ankle "
    "right_ankle left_heel right_heel left_foot_index right_foot_index"
).split()
BONES = (
    *((11, 12), (11, 23), (12, 24), (23, 24), (11, 13), (13, 15), (12, 14), (14, 16), (15, 19), (16, 20)),
    *((23, 25), (25, 27), (24, 26), (26, 28), (27, 29), (29, 31), (27, 31), (28, 30), (30, 32), (28, 32)),
)
"""Pairs of landmarks that a drawn skeleton joins."""
MIRRORED = np.array([0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, *(i + 1 if i % 2 else i - 1 for i in range(11, 33)), 33, 34])
"""Each landmark's counterpart on the other side of the body; the last two are the network's own."""
_SIDE = 256  # pixels of the network's input
_CELLS = 64  # of a heatmap's side
_OUTPUTS = ("Identity", "Identity_1", "Identity_2", "Identity_3", "Identity_4")
_CENTER, _TOP = 33, 34  # landmarks that say where the person's square is: middle of the hips, and a point of its circle
_CERTAIN = 12.0  # log-odds
_MARGIN = 1.25  # of the square about that circle
_HEATMAP_REACH, _HEATMAP_LEAST = 3, 0.5  # cells about a landmark, and the peak that makes its heatmap count


@dataclass(frozen=True)
class Square:
    """A square of a picture, turned so that the person in it is upright.

    Attributes:
        center: Its middle, pixels, the center of the top-left pixel at (0, 0).
        side: Its side, pixels.
        angle: From the picture's down to the person's down, radians, positive from x to y.
    """

    center: tuple[float, float]
    side: float
    angle: float = 0.0

    @classmethod
    def of_image(cls, height: int, width: int) -> Square:
        """Return the square about a whole picture."""
        return cls(((width - 1) / 2, (height - 1) / 2), float(max(height, width)))

    @cached_property
    def to_image(self) -> Float[np.ndarray, "2 3"]:
        """From positions in the network's input to pixels of the picture; the first pixel's center is (0, 0)."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[cos, -sin], [sin, cos]]) * (self.side / _SIDE)
        middle = np.full(2, (_SIDE - 1) / 2)
        return np.concatenate([turn, (np.array(self.center) - turn @ middle)[:, None]], axis=1)


@dataclass(frozen=True)
class Prediction:
    """The network's view of one square.

    Attributes:
        square: The square looked at.
        pixels: Landmarks, pixels of the picture.
        visibility: Of each landmark, how likely it is seen, 0 to 1.
        world: Landmarks in metres about the middle of the hips, axes along those of the picture (x right, y down, z
            away from the viewer).
        presence: How likely there is a person in the square, 0 to 1.
        mask: Log-odds of each pixel of the square being of the person.
        next_square: The person's square, to look at in the next frame.
    """

    square: Square
    pixels: Float32[np.ndarray, "33 2"]
    visibility: Float32[np.ndarray, "33"]
    world: Float32[np.ndarray, "33 3"]
    presence: float
    mask: Float32[np.ndarray, "256 256"]
    next_square: Square

    def mask_in(self, height: int, width: int) -> Float32[np.ndarray, "height width"]:
        """Return the mask's log-odds in the picture, from -12 to 12; outside the square nobody is."""
        mask = self.mask.clip(-_CERTAIN, _CERTAIN)
        size = (width, height)
        return np.asarray(cv2.warpAffine(mask, self.square.to_image, size, borderValue=(-_CERTAIN,)))


class PoseNetwork:
    """MediaPipe's network for landmarks and the mask of one person.

    Args:
        path: A `pose_landmark_*.tflite` of MediaPipe's, any of the three sizes.

    Raises:
        InputError: The file is missing or is no such network.
    """

    def __init__(self, path: Path = NETWORK) -> None:
        advice = "Give a pose_landmark_full.tflite or pose_landmark_heavy.tflite, or leave out --landmark-model"
        if not path.is_file():
            raise InputError(path, "expected MediaPipe's pose network, found no such file", advice)
        try:
            self._net = cv2.dnn.readNetFromTFLite(str(path))
            self._forward(np.zeros((1, 3, _SIDE, _SIDE), np.float32))
        except (cv2.error, ValueError) as error:
            cause = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise InputError(path, f"expected MediaPipe's pose network ({cause})", advice) from error

    def __call__(
        self, image: UInt8[np.ndarray, "height width 3"], square: Square, *, quick: bool = False
    ) -> Prediction:
        """Find the person in a square of an RGB picture.

        The network looks at the square and at its mirror image, whose mean is a tenth more exact.

        Args:
            image: The picture.
            square: Where to look.
            quick: Leave out the mirror image.
        """
        to_image = square.to_image
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = np.asarray(cv2.warpAffine(image, to_image, (_SIDE, _SIDE), flags=flags))
        views = [self._view(crop)]
        if not quick:
            views.append(self._view(crop[:, ::-1]).mirrored())
        points, visibility, world, mask = (
            np.mean([getattr(view, name) for view in views], axis=0)
            for name in ("points", "visibility", "world", "mask")
        )
        pixels = (points @ to_image[:, :2].T + to_image[:, 2]).astype(np.float32)
        cos, sin = np.cos(square.angle), np.sin(square.angle)
        world[:, :2] = world[:, :2] @ np.array([[cos, sin], [-sin, cos]])
        return Prediction(
            square=square,
            pixels=pixels[:NUM_LANDMARKS],
            visibility=visibility,
            world=world,
            presence=min(view.presence for view in views),
            mask=mask,
            next_square=_square_about(pixels[_CENTER], pixels[_TOP]),
        )

    def _view(self, crop: UInt8[np.ndarray, "256 256 3"]) -> _View:
        values = np.ascontiguousarray(crop.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255)
        landmarks, presence, mask, heatmaps, world = self._forward(values)
        landmarks = landmarks.reshape(-1, 5)[: _TOP + 1]
        return _View(
            points=_refined(landmarks[:, :2], _sigmoid(heatmaps[0, : _TOP + 1])) - 0.5,
            visibility=_sigmoid(landmarks[:NUM_LANDMARKS, 3]),
            world=world.reshape(-1, 3)[:NUM_LANDMARKS].copy(),
            presence=float(presence.reshape(-1)[0]),
            mask=mask.reshape(_SIDE, _SIDE),
        )

    def _forward(self, values: Float32[np.ndarray, "1 3 256 256"]) -> list[Float32[np.ndarray, "..."]]:
        self._net.setInput(values)
        outputs = [np.asarray(output) for output in self._net.forward(_OUTPUTS)]
        if [output.size for output in outputs] != [195, 1, _SIDE * _SIDE, 39 * _CELLS * _CELLS, 117]:
            raise ValueError(f"its outputs have the shapes {', '.join(str(output.shape) for output in outputs)}")
        return outputs


@dataclass(frozen=True)
class _View:
    """Outputs for one square, in its pixels; the first pixel's center is (0, 0)."""

    points: Float32[np.ndarray, "35 2"]
    visibility: Float32[np.ndarray, "33"]
    world: Float32[np.ndarray, "33 3"]
    presence: float
    mask: Float32[np.ndarray, "256 256"]

    def mirrored(self) -> _View:
        """Return what a mirror shows: left and right change places."""
        people = MIRRORED[:NUM_LANDMARKS]
        return _View(
            points=(np.array([_SIDE - 1, 0]) + np.array([-1, 1]) * self.points[MIRRORED]).astype(np.float32),
            visibility=self.visibility[people],
            world=(self.world * np.array([-1, 1, 1], np.float32))[people],
            presence=self.presence,
            mask=self.mask[:, ::-1],
        )


def _refined(
    points: Float32[np.ndarray, "points 2"], heatmaps: Float32[np.ndarray, "points 64 64"]
) -> Float32[np.ndarray, "points 2"]:
    """Move each point to the mean of its heatmap near it, as MediaPipe does; it is a fifth more exact."""
    points = points.copy()
    for point, heatmap in zip(points, heatmaps, strict=True):
        column, row = (int(value) for value in point * (_CELLS / _SIDE))
        if not (0 <= row < _CELLS and 0 <= column < _CELLS):
            continue
        first = max(row - _HEATMAP_REACH, 0), max(column - _HEATMAP_REACH, 0)
        near = heatmap[first[0] : row + _HEATMAP_REACH + 1, first[1] : column + _HEATMAP_REACH + 1]
        if near.max() >= _HEATMAP_LEAST:
            rows, columns = np.indices(near.shape)
            mean = ((columns + first[1]) * near).sum(), ((rows + first[0]) * near).sum()
            point[:] = np.array(mean) / near.sum() * (_SIDE / _CELLS)
    return points


def _square_about(center: Float[np.ndarray, "2"], top: Float[np.ndarray, "2"]) -> Square:
    across = top - center
    side = max(2 * _MARGIN * float(np.hypot(*across)), 2.0)
    return Square((float(center[0]), float(center[1])), side, float(np.arctan2(across[0], -across[1])))


def _sigmoid(values: np.ndarray) -> Float32[np.ndarray, "*values"]:
    return (1 / (1 + np.exp(-values.astype(np.float64).clip(-60, 60)))).astype(np.float32)
