"""Frames of a video file or of a folder of images.

A video's frames are numbered as they are decoded, whatever their times, and as the tools read them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
from PIL import Image, ImageOps

from instantavatar_ns.data.folder import images_in
from instantavatar_ns.process.video import Clip, count_pictures, open_clip, read_pictures
from instantavatar_ns.utils.errors import InputError

_ADVICE = "Give a video that ffmpeg can play, or a folder of its frames as images"


@dataclass(frozen=True)
class Video:
    """A video that was opened once.

    Attributes:
        path: The file or the folder.
        size: Height and width, upright, pixels.
        clip: The file's facts; None for a folder of images.
        images: Its images in order; None for a file.
        num_frames: Number of frames.
    """

    path: Path
    size: tuple[int, int]
    clip: Clip | None
    images: tuple[Path, ...] | None
    num_frames: int

    def __len__(self) -> int:
        return self.num_frames

    @property
    def names(self) -> list[str] | None:
        """Names of the images without suffixes; None for a file."""
        return None if self.images is None else [path.stem for path in self.images]

    def write_frames(self, numbers: Sequence[int], folder: Path, done: Callable[[float], None]) -> None:
        """Write frames as images that are named by their numbers; those of a video upright, in a screen's colors.

        Args:
            numbers: Of the frames, ascending.
            folder: Existing folder.
            done: Called with the share of the work that is done.

        Raises:
            InputError: A frame cannot be read.
        """
        if self.clip is None:
            assert self.images is not None
            for place, number in enumerate(numbers):
                source = self.images[number]
                shutil.copyfile(source, folder / f"{number:05d}{source.suffix.lower()}")
                done((place + 1) / len(numbers))
            return
        written = 0
        for picture in read_pictures(self.clip):
            if written == len(numbers):
                return
            if picture.number == numbers[written]:
                image = picture.rgb(self.size)[..., ::-1]
                (folder / f"{picture.number:05d}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
                written += 1
                done(written / len(numbers))
        if written < len(numbers):
            message = f"expected a video of {len(self)} frames, could not read frame {numbers[written]}"
            raise InputError(self.path, message, _ADVICE)


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
    clip = open_clip(path)
    return Video(path, (clip.height, clip.width), clip, None, count_pictures(clip))
