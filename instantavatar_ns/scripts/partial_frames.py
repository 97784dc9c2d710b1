"""Frames of a video on disk while it is made, so that a rendering that was stopped goes on where it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import move_into_place, written_whole

FRAME_PATTERN = "%05d.png"


class PartialFrames:
    """PNG images in a hidden folder beside the file or folder that they are to become.

    Args:
        output: The video, or the folder of images, to be made.
        settings: All that the frames follow from. Frames that were left by other settings are deleted.

    Raises:
        InputError: The hidden folder holds files of somebody else.
    """

    def __init__(self, output: Path, settings: str) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.partial")
        self.images = self.folder / "frames"
        mark = self.folder / "settings"
        if not mark.is_file() or mark.read_text(encoding="utf8") != settings:
            if self.folder.exists():
                if not mark.is_file() and any(path.is_file() for path in self.folder.rglob("*")):
                    message = "expected frames of an unfinished video, found other files"
                    raise InputError(self.folder, message, "Move them away, or give another --output")
                shutil.rmtree(self.folder)
            self.images.mkdir(parents=True)
            # Written last: a folder without it is not continued.
            mark.write_text(settings, encoding="utf8")

    def has(self, index: int) -> bool:
        """True where a frame is finished."""
        return (self.images / (FRAME_PATTERN % index)).is_file()

    def write(self, index: int, image: UInt8[np.ndarray, "height width channels"]) -> None:
        """Write a frame, which appears whole.

        Args:
            index: Number of the frame, from 0.
            image: RGB or RGBA.
        """
        with written_whole(self.images / (FRAME_PATTERN % index)) as partial:
            Image.fromarray(image).save(partial)

    def finish(self, result: Path) -> None:
        """Put the result, a file or folder within `folder`, in the output's place and delete the rest."""
        move_into_place(result, self.output)
        shutil.rmtree(self.folder)
