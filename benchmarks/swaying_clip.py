"""Masks of a clip that is held in the hand: of clips with truth, swayed by homographies.

    python -m benchmarks.swaying_clip --clips dev-male.mp4 dev-female.mp4 --subjects path/to/subjects \
        --output benchmarks/results/data_in.json

A camera that turns about its own center sees what another one sees through a homography; so the clips' frames, and the
subjects' masks, are shifted, rolled and enlarged as a phone in the hand would, and their borders cut off. Figures, for
each clip under its name, in `swaying`, where others that the file holds are kept:

- `motion_px`: how far the background moves in the clip, as `process` measures it
- `mask_iou`, `mask_iou_min`: overlap (IoU) of the masks that `process` makes with the true ones, mean and least
- `mask_iou_alone`, `mask_iou_alone_min`: the same without the background, as where it cannot be followed
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import tyro
from jaxtyping import Bool, Float
from numpy import ndarray

from benchmarks import record
from benchmarks.data_in import true_masks
from instantavatar_ns.data.folder import list_images
from instantavatar_ns.data.images import read_rgb
from instantavatar_ns.process.frames import ChosenFrames
from instantavatar_ns.process.landmarks import network_mask
from instantavatar_ns.process.masks import read_masks, refine
from instantavatar_ns.process.stages import StagedFolder
from instantavatar_ns.scripts.process import Process
from tests.process.clips import write_video

# To both sides: pixels, degrees, share of the size; and rounds in a hundred frames.
_SHIFT, _ROLL, _NEARER = (12.0, 9.0), 1.2, 0.015
_BORDER = 20  # pixels, cut off on each side: more than comes into the picture from beside it


@dataclass
class SwayingClip:
    """Benchmark of masks where the camera sways."""

    clips: tuple[Path, ...]
    """Videos, named as their subjects."""
    subjects: Path
    """Folder with a recording for each clip, whose masks are the truth."""
    output: Path | None = None
    """JSON file of the figures."""

    def main(self) -> None:
        """Measure all clips."""
        known = json.loads(self.output.read_text()) if self.output is not None and self.output.is_file() else {}
        for clip in self.clips:
            with TemporaryDirectory() as temporary:
                figures = measure(clip, true_masks(self.subjects / clip.stem), Path(temporary))
            record.progress(f"{clip.stem} {json.dumps(figures)}")
            known[clip.stem] = known.get(clip.stem, {}) | {"swaying": record.head("cpu") | figures}
        record.write(self.output, known)


def measure(clip: Path, masks: Bool[ndarray, "frames height width"], folder: Path) -> dict[str, Any]:
    """Sway a clip, process it, and compare its masks.

    Args:
        clip: The video.
        masks: Of all its frames.
        folder: To work in.
    """
    capture, images, swayed = cv2.VideoCapture(str(clip)), [], []
    for index, mask in enumerate(masks):
        read, frame = capture.read()
        assert read, f"{clip} has fewer frames than masks"
        matrix = sway(index, mask.shape)
        images.append(_seen(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), matrix))
        swayed.append(_seen(mask.astype(np.float32), matrix) > 0.5)
    rate = capture.get(cv2.CAP_PROP_FPS)
    video = write_video(folder / clip.name, images, [index / rate for index in range(len(images))])
    output = folder / "processed"
    Process(video, output).main()
    chosen = ChosenFrames.read(output)
    truth, size = [swayed[frame] for frame in chosen.frames], (chosen.height, chosen.width)
    paths = list_images(output)
    alone = [refine(read_rgb(path, size), network_mask(output, row, size), None) for row, path in enumerate(paths)]
    figures: dict[str, Any] = {"motion_px": round(StagedFolder(output, overwrite=False).facts("masks")["motion"], 1)}
    for name, found in (("mask_iou", read_masks(output)), ("mask_iou_alone", alone)):
        overlaps = [float((a & b).sum() / (a | b).sum()) for a, b in zip(found, truth, strict=True)]
        figures |= {name: round(float(np.mean(overlaps)), 4), f"{name}_min": round(min(overlaps), 4)}
    return figures


def sway(frame: int, size: Sequence[int]) -> Float[ndarray, "2 3"]:
    """Return what takes a still camera's pixels to those of one that sways, for a frame of a hundred.

    Args:
        frame: Its number.
        size: Of the picture, height and width.
    """
    turn = 2 * np.pi * frame / 100
    center = (size[1] - 1) / 2, (size[0] - 1) / 2
    matrix = cv2.getRotationMatrix2D(center, _ROLL * np.sin(2.7 * turn), 1 + _NEARER * np.sin(1.9 * turn))
    matrix[0, 2] += _SHIFT[0] * (2 * np.sin(1.3 * turn) + np.sin(3.1 * turn + 1)) / 3
    matrix[1, 2] += _SHIFT[1] * (2 * np.sin(2.1 * turn) + np.sin(3.7 * turn)) / 3
    return np.asarray(matrix)


def _seen(image: ndarray, matrix: Float[ndarray, "2 3"]) -> ndarray:
    cut = slice(_BORDER, -_BORDER)
    shown = cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.ascontiguousarray(shown[cut, cut])


if __name__ == "__main__":
    tyro.cli(SwayingClip).main()
