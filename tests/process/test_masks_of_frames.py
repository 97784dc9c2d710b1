"""Masks of frames that an estimator's result names."""

import shutil
from pathlib import Path

import cv2
import numpy as np

from instantavatar_ns.process.masks_of_frames import masks_of_frames


def test_the_person_is_found_in_the_frames_that_show_one(demo_subject: Path, tmp_path: Path) -> None:
    images = sorted((demo_subject / "images").glob("*"))[:2]
    truth = [cv2.imread(str(path), 0) > 127 for path in sorted((demo_subject / "masks").glob("*"))[:2]]
    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), np.full((*truth[0].shape, 3), 200, np.uint8))

    def write_images(folder: Path) -> None:
        for place, path in enumerate([*images, empty]):
            shutil.copyfile(path, folder / f"{place:05d}.png")

    masks = masks_of_frames(write_images, [3, 8, 12], (96, 96))
    assert sorted(masks) == [3, 8]
    for number, true in zip((3, 8), truth, strict=True):
        mask = masks[number]() > 0.5
        assert (mask & true).sum() / (mask | true).sum() > 0.85
