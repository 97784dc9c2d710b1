"""Masks of frames that somebody else chose, without the other stages of a clip."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from jaxtyping import Float32

from instantavatar_ns.process.frames import CLIP_FILE, ChosenFrames, write_text
from instantavatar_ns.process.landmarks import run_network
from instantavatar_ns.process.masks import make_masks
from instantavatar_ns.process.network import PoseNetwork
from instantavatar_ns.utils.progress import shown_progress


def masks_of_frames(
    write_images: Callable[[Path], None], numbers: Sequence[int], size: tuple[int, int]
) -> dict[int, Callable[[], Float32[np.ndarray, "height width"]]]:
    """Find the largest person in frames of one video.

    Args:
        write_images: Writes the frames, in order, into a folder.
        numbers: Of the frames.
        size: Their height and width.

    Returns:
        Function that returns the mask, 0 or 1, of each frame in which somebody was found.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "images").mkdir()
        write_images(folder / "images")
        _write_clip(folder, numbers, size)
        with shown_progress("Looking for the person") as done:
            run_network(folder, PoseNetwork(), done)
        with shown_progress("Making the masks") as done:
            make_masks(folder, done)
        files = sorted((folder / "masks").glob("*.png"))
        encoded = {number: file.read_bytes() for number, file in zip(numbers, files, strict=True)}

    def mask(number: int) -> Float32[np.ndarray, "height width"]:
        return (_decoded(encoded[number]) > 127).astype(np.float32)

    return {number: lambda number=number: mask(number) for number, data in encoded.items() if _decoded(data).any()}


def _decoded(data: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))


def _write_clip(folder: Path, numbers: Sequence[int], size: tuple[int, int]) -> None:
    """Write what the stages read of a clip; neither times nor sharpness count for masks."""
    count = len(numbers)
    clip = ChosenFrames(
        source="",
        fps=0.0,
        rotation=0,
        frames=list(numbers),
        times=list(range(count)),
        sharpness=[1.0] * count,
        width=size[1],
        height=size[0],
        focal=None,
        source_frames=count,
    )
    write_text(folder / "process" / CLIP_FILE, json.dumps(asdict(clip)))
