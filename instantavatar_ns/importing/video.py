"""Frames of a video file or of a folder of images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
from PIL import Image, ImageOps

from instantavatar_ns.data.folder import images_in
from instantavatar_ns.utils.errors import InputError

_ADVICE = "Give a video that OpenCV can play, or a folder of its frames as images"


@dataclass(frozen=True)
class Video:
    """A video that was opened once.

    Attributes:
        path: The file or the folder.
        size: Height and width, upright, pixels.
        fps: Frames per second; None for a folder of images.
        images: Its images in order; None for a file.
        num_frames: Number of frames.
    """

    path: Path
    size: tuple[int, int]
    fps: float | None
    images: tuple[Path, ...] | None
    num_frames: int

    def __len__(self) -> int:
        return self.num_frames

    @property
    def names(self) -> list[str] | None:
        """Names of the images without suffixes; None for a file."""
        return None if self.images is None else [path.stem for path in self.images]

    def write_frames(self, numbers: Sequence[int], folder: Path, done: Callable[[float], None]) -> None:
        """Write frames as images that are named by their numbers.

        Args:
            numbers: Of the frames, ascending.
            folder: Existing folder.
            done: Called with the share of the work that is done.

        Raises:
            InputError: A frame cannot be read.
        """
        if self.images is not None:
            for place, number in enumerate(numbers):
                source = self.images[number]
                shutil.copyfile(source, folder / f"{number:05d}{source.suffix.lower()}")
                done((place + 1) / len(numbers))
            return
        capture, position = cv2.VideoCapture(str(self.path)), 0
        try:
            for place, number in enumerate(numbers):
                while position < number and capture.grab():
                    position += 1
                read, image = capture.read()
                if not read:
                    message = f"expected a video of {len(self)} frames, could not read frame {position}"
                    raise InputError(self.path, message, _ADVICE)
                position += 1
                (folder / f"{number:05d}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
                done((place + 1) / len(numbers))
        finally:
            capture.release()


def open_video(path: Path) -> Video:
    """Find out size and number of frames.

    Args:
        path: A video file, turned as it says, or a folder with images or with a subfolder `images`.

    Raises:
        InputError: It is missing, unreadable or empty.
    """
    if path.is_dir():
        images = images_in(path / "images" if (path / "images").is_dir() else path)
        try:
            with Image.open(images[0]) as image:
                upright = ImageOps.exif_transpose(image)
                return Video(path, (upright.height, upright.width), None, tuple(images), len(images))
        except OSError as error:
            raise InputError(images[0], f"expected an image ({error})", "Extract the frames again") from error
    if not path.is_file():
        raise InputError(path, "expected a video or a folder of images, found no such file or folder", _ADVICE)
    capture = cv2.VideoCapture(str(path))
    try:
        read, image = capture.read()
        if not read:
            raise InputError(path, "expected a video, found no frame that can be read", _ADVICE)
        fps, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        capture.release()
    return Video(path, (image.shape[0], image.shape[1]), fps if fps > 0 else None, None, max(count, 1))
