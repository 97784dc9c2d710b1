"""Everything that a pose estimator found in a video: people, each with poses in some of the frames, and the camera."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy import ndarray

from instantavatar_ns.motion.smpl_arrays import BETAS, TRANSLATIONS, numbers, read_rotations
from instantavatar_ns.utils.errors import InputError

Skeleton = Literal["SMPL", "SMPL-X", "MHR"]
Space = Literal["camera", "world"]
Pinhole = Callable[[tuple[int, int]], Float[ndarray, "3 3"]]
"""Camera matrix of a video's images by their height and width, pixel centers as OpenCV counts them."""
_ADVICE = "Run the tool again, and give its files as it wrote them"


@dataclass(frozen=True)
class Track:
    """One person.

    Attributes:
        frames: Frames in which the person was found, ascending, as the tool counts them.
        thetas: Axis-angle rotations of SMPL's 24 joints in the camera, radians.
        transl: SMPL's translation in the camera, metres.
        betas: Shape coefficients, estimated in each frame.
        names: Name of each frame's image without its suffix; None where the tool keeps none.
        intrinsics: Camera matrix of each frame; None where one camera of the whole result tells it.
        masks: Masks of some frames, by their numbers: arrays, or COCO's run lengths.
        keypoints: MHR's 70 keypoints in the camera, metres, in place of poses; None where the tool estimates poses.
        vertices: MHR's vertices in the camera, metres, beside the keypoints; None where the file lacks them.
    """

    frames: Int[ndarray, "frames"]
    thetas: Float[ndarray, "frames 72"]
    transl: Float[ndarray, "frames 3"]
    betas: Float[ndarray, "frames 10"]
    names: Sequence[str] | None = None
    intrinsics: Float[ndarray, "frames 3 3"] | None = None
    masks: Mapping[int, Any] = field(default_factory=dict)
    keypoints: Float[ndarray, "frames 70 3"] | None = None
    vertices: Float32[ndarray, "frames points 3"] | None = None

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class ToolResult:
    """Everything that one tool found in one video.

    Attributes:
        tool: Its name.
        skeleton: Body model that the poses were estimated with.
        tracks: People by their names.
        pinhole: The camera, where it is the same for all frames.
        camera: How the tool chooses its camera, for the user.
        num_frames: Frames of the video that the tool saw, None where its file does not say.
        first_frame: Number that the tool gives to the video's first frame.
        camera_to_world: Of each frame of the video, where the tool tracked a moving camera.
        space: Where the poses of all tracks are: in the camera, or in the tool's own world.
    """

    tool: str
    skeleton: Skeleton
    tracks: Mapping[str, Track]
    pinhole: Pinhole | None
    camera: str
    num_frames: int | None = None
    first_frame: int = 0
    camera_to_world: Float[ndarray, "video_frames 4 4"] | None = None
    space: Space = "camera"


def make_track(
    path: Path, name: str, frames: Any, arrays: Mapping[str, Any], key_advice: str = "", **more: Any
) -> Track:
    """One person's track out of named arrays; rows are sorted by their frames.

    Args:
        path: The result's file, for errors.
        name: The person, for errors.
        frames: Number of each row's frame.
        arrays: Rotations, translations and betas under names that `smpl_arrays` knows.
        key_advice: What to do where an array is missing.
        more: Other fields of `Track`; those of each frame are sorted too.

    Raises:
        InputError: An array is missing, has another shape, or holds NaN; or a frame occurs twice.
    """
    advice = key_advice or _ADVICE
    person = f"person {name}"
    for kind, names in (("translation", TRANSLATIONS), ("betas", BETAS)):
        if not any(key in arrays for key in names):
            message = f"expected {person} to have a {kind} ({', '.join(names)}), found {', '.join(sorted(arrays))}"
            raise InputError(path, message, advice)
    thetas, _ = read_rotations(path, arrays)
    rows = len(thetas)
    transl, betas = (_rows(path, arrays, names, rows) for names in (TRANSLATIONS, BETAS))
    numbers_of_frames = np.asarray(frames).astype(np.int64).reshape(-1)
    if len(numbers_of_frames) != rows:
        message = f"expected as many frames as poses of {person}, found {len(numbers_of_frames)} and {rows}"
        raise InputError(path, message, advice)
    if transl.shape[1] != 3:
        raise InputError(path, f"expected translations of three numbers, found {transl.shape[1]}", advice)
    for kind, values in (("translation", transl), ("betas", betas)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            message = f"expected finite numbers, found NaN or infinity in the {kind} of {person}, frame"
            raise InputError(path, f"{message} {numbers_of_frames[bad[0]]}", advice)
    order = np.argsort(numbers_of_frames, kind="stable")
    twice = np.flatnonzero(np.diff(numbers_of_frames[order]) == 0)
    if len(twice):
        found = numbers_of_frames[order][twice[0]]
        raise InputError(path, f"expected {person} once in each frame, found it twice in frame {found}", advice)
    for key in ("intrinsics", "names"):
        if more.get(key) is not None:
            more[key] = [more[key][row] for row in order] if key == "names" else np.asarray(more[key])[order]
    ten = np.zeros((rows, 10))
    ten[:, : min(10, betas.shape[1])] = betas[:, :10]
    return Track(numbers_of_frames[order], thetas[order], transl[order], ten[order], **more)


def _rows(path: Path, arrays: Mapping[str, Any], names: tuple[str, ...], rows: int) -> Float[ndarray, "rows width"]:
    """An array with a row for each pose; a single row is every pose's."""
    name = next(key for key in names if key in arrays)
    values = numbers(path, name, arrays[name])
    values = values.reshape(1, -1) if values.ndim < 2 else values.reshape(len(values), -1)
    if len(values) == 1 and rows > 1:
        values = np.repeat(values, rows, axis=0)
    if len(values) != rows:
        message = f"expected {name} with a row for each of the {rows} poses, found {len(values)}"
        raise InputError(path, message, _ADVICE)
    return values


def required(path: Path, content: Any, keys: tuple[str, ...]) -> None:
    """Check that a file's dictionary has keys.

    Args:
        path: The result's file, for errors.
        content: The dictionary, or whatever was found in its place.
        keys: Keys that it must have.

    Raises:
        InputError: It is no dictionary, or lacks one.
    """
    if not isinstance(content, Mapping):
        raise InputError(path, f"expected {', '.join(keys)}, found no named arrays", _ADVICE)
    missing = [key for key in keys if key not in content]
    if missing:
        message = f"expected {', '.join(missing)}, found {', '.join(sorted(content)) or 'nothing'}"
        raise InputError(path, message, _ADVICE)


def camera_to_world(path: Path, rotations: Any, positions: Any) -> Float[ndarray, "frames 4 4"]:
    """Camera-to-world transforms out of rotations and positions.

    Args:
        path: The result's file, for errors.
        rotations: Camera-to-world matrices [frames, 3, 3].
        positions: Of the camera in the world [frames, 3], metres.

    Raises:
        InputError: The shapes are others, or a number is not finite.
    """
    rotations, positions = np.asarray(rotations, np.float64), np.asarray(positions, np.float64)
    positions = positions.reshape(len(positions), -1)
    if rotations.shape != (len(positions), 3, 3) or positions.shape[1] != 3:
        message = f"expected camera rotations (T, 3, 3) and positions (T, 3), found {rotations.shape} and"
        raise InputError(path, f"{message} {positions.shape}", _ADVICE)
    if not (np.isfinite(rotations).all() and np.isfinite(positions).all()):
        raise InputError(path, "expected finite numbers, found NaN or infinity in the camera's motion", _ADVICE)
    transforms = np.tile(np.eye(4), (len(rotations), 1, 1))
    transforms[:, :3, :3], transforms[:, :3, 3] = rotations, positions
    return transforms


def pinhole(focal: float | Callable[[tuple[int, int]], float]) -> Pinhole:
    """Camera with the given focal length, pixels, that looks through the middle of the image (W/2, H/2)."""

    def matrix(size: tuple[int, int]) -> Float[ndarray, "3 3"]:
        length = focal(size) if callable(focal) else focal
        return np.array([[length, 0.0, size[1] / 2], [0.0, length, size[0] / 2], [0.0, 0.0, 1.0]])

    return matrix
