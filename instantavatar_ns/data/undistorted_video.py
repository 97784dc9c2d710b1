"""Frames and masks of a video without lens distortion, made once and kept in a cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
from filelock import FileLock
from jaxtyping import Float, UInt8
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import track

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import delete_partial, written_whole
from instantavatar_ns.utils.notices import notice

_LAYOUT_VERSION = 1
FEW_FRAMES = 5
"""By as many a recording's masks, poses and frames may differ, which is said: containers do not count exactly."""
_OTHER_CAMERA = "camera.pkl is for another resolution"
_SCALED = "Use video and masks in the camera's resolution, or scale camera_f, camera_c, width and height in camera.pkl"


@dataclass(frozen=True)
class VideoSource:
    """A video with masks, as recorded.

    Attributes:
        video: The video file.
        masks: HDF5 file with `masks` (frames, height, width), not 0 where the person is.
        intrinsics: Camera matrix, pixels, the center of the top-left one at (0, 0).
        distortion: OpenCV's coefficients k1, k2, p1, p2, k3.
        size: Height and width of the video, pixels.
    """

    video: Path
    masks: Path
    intrinsics: Float[np.ndarray, "3 3"]
    distortion: Float[np.ndarray, "5"]
    size: tuple[int, int]


def undistorted_frames(
    source: VideoSource, numbers: list[int], size: tuple[int, int], cache: Path
) -> tuple[list[Path], list[Path]]:
    """Paths of the undistorted images and masks of the frames `numbers`, which are made where the cache lacks them.

    Args:
        source: The recording; it is only read.
        numbers: Frames wanted, all of which the cache then holds or lacks together.
        size: Height and width wanted, pixels; smaller ones than the video's are made by averaging.
        cache: Folder of the cache, made where it does not exist.

    Raises:
        InputError: The video or the masks are unreadable or end early, or the cache cannot be written.
    """
    folder = cache / _cache_key(source, numbers, size)
    if not folder.is_dir():
        with _locked(cache):
            # Whoever held the lock before may have made it.
            if not folder.is_dir():
                _fill(source, numbers, size, folder)
    images = [folder / f"image_{number:06d}.png" for number in numbers]
    return images, [folder / f"mask_{number:06d}.png" for number in numbers]


def _cache_key(source: VideoSource, numbers: list[int], size: tuple[int, int]) -> str:
    """Changes whenever the files or the wanted frames do."""
    paths = (source.video, source.masks)
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    camera = [source.intrinsics.tolist(), source.distortion.tolist(), source.size]
    content = json.dumps([_LAYOUT_VERSION, files, camera, numbers, size])
    return f"{source.video.stem}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """One process at a time; the lock of a killed process is free again."""
    lock = FileLock(cache / ".lock")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        message = f"expected a folder that can be written ({error})"
        raise InputError(cache, message, "Choose another one with the option cache_dir") from error
    try:
        yield
    finally:
        lock.release()


def _fill(source: VideoSource, numbers: list[int], size: tuple[int, int], folder: Path) -> None:
    """Write all frames to a folder that gets its name when it is complete."""
    delete_partial(folder.parent)  # the lock is held
    try:
        with written_whole(folder) as partial:
            partial.mkdir()
            for number, image, mask in _read_frames(source, numbers):
                for kind, pixels in (("image", image), ("mask", mask)):
                    if size != source.size:
                        pixels = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_AREA)
                    (partial / f"{kind}_{number:06d}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    except OSError as error:
        message = f"expected a folder with room for {len(numbers)} frames ({error})"
        advice = "Make room, or choose another folder with the option cache_dir"
        raise InputError(folder.parent, message, advice) from error


def _read_frames(
    source: VideoSource, numbers: list[int]
) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]]:
    """Number, BGR image and mask (0 to 255) of each wanted frame, undistorted, in time order."""
    height, width = source.size
    maps = cv2.initUndistortRectifyMap(
        source.intrinsics, source.distortion, np.eye(3), source.intrinsics, (width, height), cv2.CV_32FC1
    )
    capture = cv2.VideoCapture(str(source.video))
    advice = "Download the video again; OpenCV must be able to play it"
    try:
        if not capture.isOpened():
            raise InputError(source.video, "expected a readable video", advice)
        video_size = tuple(int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        with _open_masks(source, video_size) as masks:
            position = 0
            for number in track(sorted(numbers), f"Undistorting {source.video.name}", console=CONSOLE, transient=True):
                while position < number and capture.grab():
                    position += 1
                read, image = capture.read()
                if not read:
                    message = f"expected a video of at least {max(numbers) + 1} frames, could not read frame {position}"
                    shorter = (
                        "Download the video again if it was cut or damaged, or set --train-frames and --test-frames to "
                        f"the first {position} frames"
                    )
                    raise InputError(source.video, message, shorter if position else advice)
                position += 1
                if image.shape[:2] != source.size:
                    message = (
                        f"expected frames of height and width {source.size}, as camera.pkl says, found "
                        f"{image.shape[:2]}; {_OTHER_CAMERA}"
                    )
                    raise InputError(source.video, message, _SCALED)
                mask = _read_mask(source.masks, masks, number)
                image, mask = (cv2.remap(pixels, *maps, cv2.INTER_LINEAR) for pixels in (image, mask))
                yield number, np.asarray(image), np.asarray(mask)
    finally:
        capture.release()


def check_counts(source: VideoSource, num_masks: int) -> None:
    """Compare the number of masks with that of the video's frames, as its container tells it.

    Published are as many of both. A few more or less can be the container's count; many mean that one of them was cut,
    and where its beginning was cut off, every mask would be that of another frame.

    Args:
        source: The recording. A video that cannot be read, or does not tell its length, is left to those who read it.
        num_masks: Number of masks.

    Raises:
        InputError: They differ by more than a few.
    """
    capture = cv2.VideoCapture(str(source.video))
    try:
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0.0
    finally:
        capture.release()
    frames = int(count) if np.isfinite(count) else 0
    if frames <= 0 or frames == num_masks:
        return
    found = f"{num_masks} masks for the {frames} frames of {source.video.name}"
    if abs(frames - num_masks) > FEW_FRAMES:
        message = f"expected as many masks as the video has frames, found {found}"
        advice = "Download both again, or cut both alike; the first mask is that of the video's first frame"
        raise InputError(source.masks, message, advice)
    notice(source.masks, f"It has {found}. The first mask is taken for that of the first frame, and so on.")


@contextmanager
def _open_masks(source: VideoSource, video_size: tuple[int, ...]) -> Iterator[h5py.Dataset]:
    """The masks, of the camera's size; the video's own tells what is wrong if they are not."""
    with open_hdf5(source.masks, ("masks",), "Download the masks again") as file:
        masks = file["masks"]
        if not isinstance(masks, h5py.Dataset) or masks.shape[1:] != source.size:
            expected = f"expected masks of shape (frames, {source.size[0]}, {source.size[1]}), as camera.pkl says"
            shape = getattr(masks, "shape", ())
            if shape[1:] == video_size:
                raise InputError(source.masks, f"{expected}, found {shape}; {_OTHER_CAMERA}", _SCALED)
            raise InputError(source.masks, f"{expected}, found {shape}", "Make the masks at the video's resolution")
        yield masks


def _read_mask(path: Path, masks: h5py.Dataset, number: int) -> UInt8[np.ndarray, "h w"]:
    try:
        return np.where(masks[number], np.uint8(255), np.uint8(0))
    except (OSError, ValueError, IndexError) as error:
        message = f"expected a mask for frame {number} ({error})"
        raise InputError(path, message, "Download the masks again") from error


@contextmanager
def open_hdf5(path: Path, keys: tuple[str, ...], advice: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Args:
        path: The file.
        keys: Names of what it must hold.
        advice: What to do if it does not, one sentence without a full stop.

    Raises:
        InputError: The file is missing, unreadable or lacks a key.
    """
    if not path.is_file():
        raise InputError(path, f"expected an HDF5 file with {', '.join(keys)}, found no such file", advice)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(path, f"expected an HDF5 file with {', '.join(keys)} ({error})", advice) from error
    with file:
        missing = [key for key in keys if key not in file]
        if missing:
            message = f"expected an HDF5 file with {', '.join(keys)}, found no {', '.join(missing)}"
            raise InputError(path, message, advice)
        yield file
