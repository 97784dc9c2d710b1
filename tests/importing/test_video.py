"""Frames of a video that an estimator was run on: upright, in a screen's colors, numbered as they are decoded."""

import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from instantavatar_ns.importing.video import open_video
from instantavatar_ns.process import hdr
from instantavatar_ns.utils.errors import InputError
from tests.process.clips import write_video

STEP = 15


def _images(count: int = 8) -> list[np.ndarray]:
    """Grey pictures whose top left corner is red; brighter with each."""
    images = [np.full((48, 80, 3), 60 + STEP * index, np.uint8) for index in range(count)]
    for image in images:
        image[:16, :24] = 220, 30, 30
    return images


def _written(path: Path, folder: Path, numbers: list[int]) -> dict[int, np.ndarray]:
    """Frames of a video, RGB, by the numbers that their files are named by."""
    folder.mkdir()
    shares = []
    open_video(path).write_frames(numbers, folder, shares.append)
    assert shares[-1] == 1
    return {int(file.stem): cv2.imread(str(file))[..., ::-1] for file in sorted(folder.iterdir())}


def test_uneven_times_leave_the_numbers_as_they_are_decoded(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.2, 0.7, 0.8, 1.5, 3.0, 3.1]
    path = write_video(tmp_path / "uneven.mp4", _images(), times)
    assert len(open_video(path)) == 8
    frames = _written(path, tmp_path / "frames", [0, 3, 4, 7])
    brightness = {number: float(image[40, 60].mean()) for number, image in frames.items()}
    assert brightness == pytest.approx({number: 60 + STEP * number for number in (0, 3, 4, 7)}, abs=4)
    capture, decoded = cv2.VideoCapture(str(path)), []  # as the estimators read videos
    while (read := capture.read())[0]:
        decoded.append(float(read[1][40, 60].mean()))
    assert len(decoded) == 8
    assert brightness == pytest.approx({number: decoded[number] for number in brightness}, abs=4)


def test_frames_are_counted_where_the_header_does_not_tell(tmp_path: Path) -> None:
    path = write_video(tmp_path / "uneven.mkv", _images(), [0.0, 0.1, 0.2, 0.7, 0.8, 1.5, 3.0, 3.1])
    assert len(open_video(path)) == 8


def test_video_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    turned = tmp_path / "turned.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-display_rotation", "90"]
    stored = write_video(tmp_path / "stored.mp4", _images())
    subprocess.run([*command, "-i", str(stored), "-c", "copy", str(turned)], check=True)
    assert open_video(turned).size == (80, 48)
    (image,) = _written(turned, tmp_path / "frames", [5]).values()
    assert image.shape == (80, 48, 3)
    rows, columns = np.nonzero((image[..., 0] > 150) & (image[..., 1] < 90))
    assert rows.mean() > 60 and columns.mean() < 12  # the red corner, at the lower left
    assert image[10, 20].mean() == pytest.approx(60 + 5 * STEP, abs=4)


def test_hdr_is_brought_to_the_screen(tmp_path: Path) -> None:
    white = np.full((48, 80, 3), round(0.75 * 65535), np.uint16)  # paper, in ITU-R BT.2408
    path = write_video(
        tmp_path / "hlg.mp4", [white // 2, white, white // 2], pixel_format="yuv420p10le", color_trc=hdr.HLG
    )
    (image,) = _written(path, tmp_path / "frames", [1]).values()
    assert 225 <= image.mean() <= 250  # the signal itself would be 191


def test_video_that_ends_too_early_is_told(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", _images())
    with pytest.raises(InputError, match="could not read frame 9"):
        _written(path, tmp_path / "frames", [2, 9])
