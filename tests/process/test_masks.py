"""Masks from a rough mask, a background and the image's edges; and masks that a user brings."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from instantavatar_ns.process.masks import make_masks, read_masks, refine, take_masks
from instantavatar_ns.process.plate import STILL, camera_motion, follow_background, make_plate
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


def _rough(mask: np.ndarray, scale: int = 1) -> np.ndarray:
    """Log-odds as a network gives them: right inside, a few pixels off at the edge."""
    moved = np.roll(mask, (3 * scale, 2 * scale), axis=(0, 1)).astype(np.float32)
    return (12 * cv2.GaussianBlur(moved, (0, 0), 3 * scale) - 6).astype(np.float32)


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


def _swaying(count: int = 16) -> list[np.ndarray]:
    """Homographies of a camera that is held in the hand: it turns, rolls and comes nearer; the middle one is 1."""
    result = []
    for phase in np.linspace(-1, 1, count + 1)[:-1]:
        sway = cv2.getRotationMatrix2D((80, 60), np.sin(5 * phase), 1 + 0.02 * np.sin(3 * phase))
        sway[:, 2] += 9 * np.sin(4 * phase), 6 * np.sin(7 * phase)
        result.append(np.vstack([sway, [2e-5 * np.sin(2 * phase), 0, 1]]))
    return result


def _filmed(
    homographies: list[np.ndarray], near: float = 0.0, scale: int = 1
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images and exact masks of an ellipse before the room, each seen through a homography, `scale` times as large.

    `near` moves a third of the room, which is nearer, by as many pixels more in each frame.
    """
    random, large, size = np.random.default_rng(1), (160, 200), (scale * SIZE[1], scale * SIZE[0])
    rows, columns = np.indices(large)
    images, masks = [], []
    for index, homography in enumerate(homographies):
        mask = ((rows - 80) / 45) ** 2 + ((columns - 90 - 2 * index) / 16) ** 2 < 1
        image = _room()[: large[0], : large[1]].copy()
        image[:, :70] = np.roll(image, round(near * (index - len(homographies) // 2)), axis=0)[:, :70]
        image[mask] = (70, 90, 160)
        seen = np.diag([scale, scale, 1.0]) @ homography @ np.array([[1.0, 0, -20], [0, 1, -20], [0, 0, 1]])
        shown = np.asarray(cv2.warpPerspective(image, seen, size, flags=cv2.INTER_CUBIC))
        images.append((shown + random.normal(0, 1.5, shown.shape)).clip(0, 255).astype(np.uint8))
        masks.append(np.asarray(cv2.warpPerspective(mask.astype(np.float32), seen, size)) > 0.5)
    return images, masks


def _greys(images: list[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) for image in images]


def test_background_of_a_swaying_camera_is_followed() -> None:
    homographies = _swaying()
    images, masks = _filmed(homographies)
    found, left = follow_background(_greys(images), masks)
    assert left < 0.25
    middle = homographies[len(homographies) // 2]
    corners = np.array([[[20.0, 20.0], [140.0, 20.0], [20.0, 100.0], [140.0, 100.0]]])
    for homography, ours in zip(homographies, found, strict=True):
        expected = cv2.perspectiveTransform(corners, middle @ np.linalg.inv(homography))
        np.testing.assert_allclose(cv2.perspectiveTransform(corners, ours), expected, atol=0.5)


def test_things_at_several_distances_do_not_follow_one_homography() -> None:
    still = [np.eye(3)] * 16
    images, masks = _filmed(still, near=1.0)
    _, left = follow_background(_greys(images), masks)
    assert left > STILL
    blank = [np.full(SIZE, 200, np.uint8)] * 4
    assert follow_background(blank, [np.zeros(SIZE, bool)] * 4)[1] == float("inf")


@pytest.mark.parametrize(("near", "is_followed"), [(0.0, True), (1.0, False)])
def test_masks_of_a_swaying_camera_are_made_with_its_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: float, is_followed: bool
) -> None:
    images, masks = _filmed(_swaying(), near, scale=2)
    folder = _folder(tmp_path, list(range(len(images))), scale=2)
    (folder / "images").mkdir()
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / "images" / f"{index:05d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    rough = [_rough(mask, scale=2) for mask in masks]

    def network_mask(_: Path, index: int, size: tuple[int, int]) -> np.ndarray:
        return cv2.resize(rough[index], size[::-1])

    monkeypatch.setattr("instantavatar_ns.process.masks.network_mask", network_mask)
    facts = make_masks(folder, lambda share: None)
    assert facts.motion is not None and not facts.is_still
    assert facts.is_followed == is_followed
    found = read_masks(folder)
    alone = [refine(image, values, None) for image, values in zip(images, rough, strict=True)]
    overlaps, without = ([_iou(a, b) for a, b in zip(each, masks, strict=True)] for each in (found, alone))
    if is_followed:
        assert np.mean(overlaps) > np.mean(without) + 0.02
    else:
        np.testing.assert_array_equal(overlaps, without)


def test_nobody_has_an_empty_mask() -> None:
    images, _ = _clip(1)
    assert not refine(images[0], np.full(SIZE, -12, np.float32), None).any()


def _folder(tmp_path: Path, frames: list[int], scale: int = 1) -> Path:
    content = {"source": "clip.mp4", "fps": 10.0, "rotation": 0, "frames": frames, "times": [f / 10 for f in frames]}
    content |= {"sharpness": [1.0] * len(frames), "width": scale * SIZE[1], "height": scale * SIZE[0], "focal": None}
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
