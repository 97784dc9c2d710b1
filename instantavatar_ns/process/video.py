"""Pictures of a clip, upright, with their times: of a video file, or of a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from jaxtyping import UInt8
from PIL import Image, ImageOps

from instantavatar_ns.data.folder import list_pictures
from instantavatar_ns.process import hdr
from instantavatar_ns.utils.errors import InputError

_ADVICE = "Give a video that ffmpeg can play, or a folder of pictures"
_FOLDER_FPS = 30.0
_FULL_FRAME_WIDTH = 36.0  # millimetres: a focal length "equivalent to 35 mm" is one on film of this width
_FOCAL_TAGS = ("com.apple.quicktime.camera.focal_length.35mm_equivalent", "focal_length_in_35mm_film")
_EXIF, _EXIF_FOCAL = 0x8769, 0xA405  # the tag FocalLengthIn35mmFilm


@dataclass(frozen=True)
class Clip:
    """A clip's facts, as far as its header tells them.

    Attributes:
        path: The video, or the folder.
        width: Of its pictures, as a viewer sees them.
        height: Likewise.
        fps: Mean pictures per second; that of a folder is assumed.
        seconds: From the first picture to the end, roughly: headers may be wrong.
        rotation: Degrees by which a viewer turns the stored pictures, counter-clockwise.
        focal: Focal length from its tags, pixels; None where there is none.
        pictures: The files of a folder; empty for a video.
    """

    path: Path
    width: int
    height: int
    fps: float
    seconds: float
    rotation: int
    focal: float | None
    pictures: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Picture:
    """One picture of a clip.

    Attributes:
        number: Its place in the clip, from 0.
        time: Seconds since the clip's first picture.
        frame: As decoded: a video's frame, or the path of a file.
    """

    number: int
    time: float
    frame: VideoFrame | Path

    def rgb(self, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "height width 3"]:
        """Return its colors, upright.

        Args:
            size: Height and width wanted; None for its own.

        Raises:
            InputError: A file is unreadable.
        """
        image = _read(self.frame) if isinstance(self.frame, Path) else _upright(self.frame)
        if size is not None and image.shape[:2] != size:
            image = np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA))
        return image

    def grey(self, height: int) -> UInt8[np.ndarray, "height width"]:
        """Return its brightness at a small size, as stored (it may lie on its side).

        Args:
            height: Rows wanted; no more than it has.
        """
        if isinstance(self.frame, Path):
            image = cv2.cvtColor(_read(self.frame), cv2.COLOR_RGB2GRAY)
            rows = min(height, image.shape[0])
            size = (max(round(image.shape[1] * rows / image.shape[0]), 1), rows)
            return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        rows = min(height, self.frame.height)
        width = max(round(self.frame.width * rows / self.frame.height), 1)
        return self.frame.to_ndarray(format="gray", width=width, height=rows)


def open_clip(path: Path) -> Clip:
    """Read what a clip's header says.

    Raises:
        InputError: There is no such file, or no picture in it that can be read.
    """
    if path.is_dir():
        pictures = tuple(list_pictures(path))
        image = _read(pictures[0])
        focal = _focal_of_picture(pictures[0], max(image.shape[:2]))
        return Clip(path, image.shape[1], image.shape[0], _FOLDER_FPS, len(pictures) / _FOLDER_FPS, 0, focal, pictures)
    with _opened(path) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            height, width = _upright(frame).shape[:2]
            tags = {**container.metadata, **stream.metadata}
            fps = float(stream.average_rate or stream.guessed_rate or _FOLDER_FPS)
            focal = _focal_of_tags(tags, max(height, width))
            return Clip(path, width, height, fps, (container.duration or 0) / 1e6, frame.rotation % 360, focal)
    raise InputError(path, "expected a video, found one without a picture", _ADVICE)


def read_pictures(clip: Clip, start: float = 0.0, end: float = np.inf) -> Iterator[Picture]:
    """Yield a clip's pictures in the order of their times.

    Args:
        clip: The clip.
        start: Seconds; earlier pictures are left out.
        end: Seconds; later pictures are left out.

    Raises:
        InputError: The file cannot be read.
    """
    if clip.pictures:
        for number, path in enumerate(clip.pictures):
            if start <= number / clip.fps <= end:
                yield Picture(number, number / clip.fps, path)
        return
    with _opened(clip.path) as container:
        first, number = None, 0
        for frame in container.decode(container.streams.video[0]):
            # Some files have no times; they are taken for evenly spaced.
            time = number / clip.fps if frame.time is None else float(frame.time)
            first = time if first is None else first
            if time - first > end:
                return
            if time - first >= start:
                yield Picture(number, time - first, frame)
            number += 1


def count_pictures(clip: Clip) -> int:
    """Return how many pictures a clip has: as its header says, else as many as are stored.

    Raises:
        InputError: The file cannot be read.
    """
    if clip.pictures:
        return len(clip.pictures)
    with _opened(clip.path) as container:
        told = container.streams.video[0].frames
    return told or len(picture_times(clip))


def picture_times(clip: Clip) -> list[float]:
    """Return the times of a clip's pictures, ascending, seconds since the first; nothing is decoded.

    Raises:
        InputError: The file cannot be read.
    """
    if clip.pictures:
        return [number / clip.fps for number in range(len(clip.pictures))]
    with _opened(clip.path) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        stored = [packet.pts for packet in packets if packet.pts is not None]
        if len(stored) < len(packets) or stream.time_base is None:  # evenly spaced, as where they are decoded
            return [number / clip.fps for number in range(len(packets))]
        return [float((pts - min(stored)) * stream.time_base) for pts in sorted(stored)]


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    if not path.is_file():
        raise InputError(path, "expected a video or a folder of pictures, found no such file", _ADVICE)
    if path.stat().st_size == 0:
        raise InputError(path, "expected a video, found an empty file", "Copy or download it again")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(path, "expected a video, found a file without pictures", _ADVICE)
            container.streams.video[0].thread_type = "AUTO"
            yield container
    except FFmpegError as error:
        raise InputError(path, f"expected a video ({error.strerror or error})", _ADVICE) from error


def _upright(frame: VideoFrame) -> UInt8[np.ndarray, "height width 3"]:
    if int(frame.color_trc) in (hdr.PQ, hdr.HLG):
        image = hdr.to_screen(frame.to_ndarray(format="rgb48le"), int(frame.color_trc))
    else:
        image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, frame.rotation // 90))


def _read(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:
        # A damaged file makes its decoder raise nearly anything.
        raise InputError(path, f"expected a readable picture ({error})", "Remove it, or copy it again") from error


def _focal_of_tags(tags: dict[str, str], longer_side: int) -> float | None:
    for name in _FOCAL_TAGS:
        try:
            millimetres = float(tags.get(name, "0"))
        except ValueError:
            continue
        if millimetres > 0:
            return millimetres / _FULL_FRAME_WIDTH * longer_side
    return None


def _focal_of_picture(path: Path, longer_side: int) -> float | None:
    with Image.open(path) as image:
        millimetres = image.getexif().get_ifd(_EXIF).get(_EXIF_FOCAL)
    return float(millimetres) / _FULL_FRAME_WIDTH * longer_side if millimetres else None
