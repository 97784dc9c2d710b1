"""Masks from a rough mask, a background and the image's edges; and masks that a user brings."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from instantavatar_ns.process.masks import read_masks, refine, take_masks
from instantavatar_ns.process.plate import camera_motion, make_plate
from instantavatar_ns.utils.errors import InputError

SIZE = (120, 160)


def _room(seed: int = 0) -> np.ndarray:
    """A room with texture, 0 to 255, larger than the images so that a camera can move in it."""
    random = np.random.default_rng(seed)
    noise = [cv2.resize(random.normal(size=(n, n, 3)), (200, 200), interpolation=cv2.INTER_CUBIC) for n in (12, 50)]
    return (120 + 30 * noise[0] + 12 * noise[1]).clip(0, 255)


def _clip(count: int = 20, motion: float = 0.0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images and exact masks of an ellipse that walks through the room, whose light flickers."""
    random, room = np.random.default_rng(1), _room()
    rows, columns = np.indices(SIZE)
    images, masks = [], []
    for index in range(count):
        mask = ((rows - 60) / 45) ** 2 + ((columns - 40 - 4 * index) / 16) ** 2 < 1
        shift = np.array([[1, 0, -10 - motion * index], [0, 1, -10]], np.float64)
        image = np.asarray(cv2.warpAffine(room, shift, SIZE[::-1])) * (1 + 0.05 * np.sin(index))
        image[mask] = (70, 90, 160)
        images.append((image + random.normal(0, 1.5, image.shape)).clip(0, 255).astype(np.uint8))
        masks.append(mask)
    return images, masks


def _rough(mask: np.ndarray) -> np.ndarray:
    """Log-odds as a network gives them: right inside, a few pixels off at the edge."""
    moved = np.roll(mask, (3, 2), axis=(0, 1)).astype(np.float32)
    return (12 * cv2.GaussianBlur(moved, (0, 0), 3) - 6).astype(np.float32)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_background_makes_masks_better() -> None:
    images, masks = _clip()
    rough = [_rough(mask) for mask in masks]
    plate = make_plate(images, [values > -3 for values in rough])
    assert plate.known.mean() > 0.95
    for index in (0, 7, 19):
        alone = _iou(refine(images[index], rough[index], None), masks[index])
        together = _iou(refine(images[index], rough[index], plate), masks[index])
        assert together > 0.95
        assert together > alone + 0.02


def test_shadow_is_no_person() -> None:
    images, masks = _clip()
    rough = [_rough(mask) for mask in masks]
    plate = make_plate(images, [values > -3 for values in rough])
    shaded = images[5].astype(np.float32)
    below = np.zeros(SIZE, bool)
    below[106:114, 45:80] = True
    shaded[below & ~masks[5]] *= 0.85
    uncertain = rough[5].copy()
    uncertain[below] = np.maximum(uncertain[below], 0.5)  # the network takes the shadow for a foot
    found = refine(shaded.astype(np.uint8), uncertain, plate)
    assert found[below & ~masks[5]].mean() < 0.2


@pytest.mark.parametrize(("motion", "least", "most"), [(0.0, 0.0, 0.3), (0.5, 2.0, 6.0)])
def test_camera_motion_is_measured(motion: float, least: float, most: float) -> None:
    images, masks = _clip(motion=motion)
    assert least <= camera_motion(images, masks) <= most


def test_blank_wall_has_no_measurable_motion() -> None:
    images = [np.full((*SIZE, 3), 200, np.uint8)] * 4
    assert camera_motion(images, [np.zeros(SIZE, bool)] * 4) == float("inf")


def test_nobody_has_an_empty_mask() -> None:
    images, _ = _clip(1)
    assert not refine(images[0], np.full(SIZE, -12, np.float32), None).any()


def _folder(tmp_path: Path, frames: list[int]) -> Path:
    content = {"source": "clip.mp4", "fps": 10.0, "rotation": 0, "frames": frames, "times": [f / 10 for f in frames]}
    content |= {"sharpness": [1.0] * len(frames), "width": SIZE[1], "height": SIZE[0], "focal": None}
    (tmp_path / "process").mkdir()
    (tmp_path / "process" / "clip.json").write_text(json.dumps(content | {"source_frames": 12}))
    return tmp_path


def _write_masks(folder: Path, count: int, size: tuple[int, int] = SIZE) -> Path:
    """Masks whose white part is as many columns wide as the frame's number."""
    folder.mkdir()
    for number in range(count):
        mask = np.zeros(size, np.uint8)
        mask[20:100, 10 : 11 + number] = 255
        cv2.imwrite(str(folder / f"{number:03d}.png"), mask)
    return folder


@pytest.mark.parametrize(("given", "rows"), [(4, [0, 1, 2, 3]), (12, [1, 4, 7, 11])])
def test_masks_of_a_user_are_those_of_chosen_or_all_frames(tmp_path: Path, given: int, rows: list[int]) -> None:
    folder = _folder(tmp_path, [1, 4, 7, 11])
    take_masks(folder, _write_masks(tmp_path / "mine", given), lambda share: None)
    assert [int(mask[50].sum()) for mask in read_masks(folder)] == [1 + row for row in rows]


def test_masks_of_a_larger_video_are_reduced(tmp_path: Path) -> None:
    folder = _folder(tmp_path, [0, 1])
    take_masks(folder, _write_masks(tmp_path / "mine", 2, (240, 320)), lambda share: None)
    assert read_masks(folder).shape == (2, *SIZE)


def test_masks_that_do_not_fit_are_told(tmp_path: Path) -> None:
    folder = _folder(tmp_path, [1, 4, 7, 11])
    with pytest.raises(InputError, match="4 chosen frames, or of all 12 or more of the source, found 5"):
        take_masks(folder, _write_masks(tmp_path / "few", 5), lambda share: None)
    with pytest.raises(InputError, match="shape of the frames"):
        take_masks(folder, _write_masks(tmp_path / "upright", 4, (160, 120)), lambda share: None)
    assert sorted(path.name for path in folder.iterdir()) == ["few", "process", "upright"], "nothing half-written"
