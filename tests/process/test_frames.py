"""Choice of frames: sharp, spread over the time, of the clip's part that is wanted."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from instantavatar_ns.process.frames import ChosenFrames, choose, relative_sharpness, rows_needed, write_frames
from instantavatar_ns.process.video import open_clip
from instantavatar_ns.utils.errors import InputError
from tests.process.clips import write_video


def test_frames_are_spread_over_the_time_not_the_number() -> None:
    # A clip of a variable rate: many frames in its first second, few in the next nine.
    times = np.concatenate([np.linspace(0, 1, 100, endpoint=False), np.linspace(1, 10, 91)])
    chosen = choose(times, np.ones(len(times)), 20)
    assert len(chosen) == 20
    gaps = np.diff(times[chosen])
    assert gaps.min() > 0.2
    assert gaps.max() < 0.8


def test_sharper_neighbor_is_taken() -> None:
    times = np.arange(60) / 30
    sharpness = np.full(60, 100.0)
    sharpness[::2] = 30  # every second frame is blurred
    assert (choose(times, sharpness, 20) % 2 == 1).all()


def test_all_are_taken_of_a_short_clip() -> None:
    assert choose(np.arange(12) / 30, np.ones(12), 100).tolist() == list(range(12))


@pytest.mark.parametrize("count", [8, 20, 300])
def test_rows_that_results_need_are_known_before_the_choice(count: int) -> None:
    times = np.concatenate([np.arange(60) / 30, 5 + np.arange(40) / 30])  # parts of the time have no frame
    numbers = np.arange(100) + 7
    of_chosen, of_all = rows_needed(numbers, times, count)
    for seed in range(20):
        chosen = choose(times, np.random.default_rng(seed).uniform(1, 100, 100), count)
        assert len(of_chosen) == len(chosen)
        assert len(of_all) <= numbers[chosen[-1]] + 1
    sharp = np.where(numbers == of_all[-1], 1e6, 1.0)
    assert numbers[choose(times, sharp, count)[-1]] == of_all[-1]  # no more rows are asked for than may be needed


def test_sharpness_is_relative_to_the_frames_around() -> None:
    times = np.arange(90) / 30
    sharpness = np.where(times < 1.5, 1000.0, 10.0)  # the person walks from a bright wall to a plain one
    sharpness[20] = 300
    found = relative_sharpness(times, sharpness)
    assert found[20] == pytest.approx(0.3)
    assert found[80] == pytest.approx(1.0)


def test_blurred_frames_of_a_video_are_left_out(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = cv2.resize(random.integers(0, 255, (24, 40, 3), np.uint8), (80, 48), interpolation=cv2.INTER_NEAREST)
    images = [noise if index % 3 == 1 else np.asarray(cv2.GaussianBlur(noise, (0, 0), 3)) for index in range(30)]
    clip = open_clip(write_video(tmp_path / "clip.mp4", images))
    shown = []
    chosen = write_frames(clip, tmp_path / "out", (0.0, np.inf), 10, 1080, shown.append)
    assert all(number % 3 == 1 for number in chosen.frames)
    assert shown[-1] == pytest.approx(1.0)
    assert ChosenFrames.read(tmp_path / "out") == chosen
    assert len(list((tmp_path / "out" / "images").glob("*.png"))) == 10


def test_clip_json_tells_what_the_images_are(tmp_path: Path) -> None:
    images = [np.full((60, 100, 3), 10 * index, np.uint8) for index in range(20)]
    clip = open_clip(write_video(tmp_path / "clip.mp4", images))
    write_frames(clip, tmp_path / "out", (0.45, 1.65), 100, 50, lambda share: None)
    content = json.loads((tmp_path / "out" / "process" / "clip.json").read_text())
    assert content["frames"] == list(range(5, 17))
    np.testing.assert_allclose(content["times"], np.arange(5, 17) / 10, atol=2e-3)
    assert (content["height"], content["width"], content["focal"]) == (30, 50, None)
    image = cv2.imread(str(tmp_path / "out" / "images" / "00003.png"))
    assert image.shape == (30, 50, 3)
    np.testing.assert_allclose(image.mean(), 80, atol=4)


def test_too_short_a_part_is_told(tmp_path: Path) -> None:
    images = [np.full((48, 80, 3), 10 * index, np.uint8) for index in range(20)]
    clip = open_clip(write_video(tmp_path / "clip.mp4", images))
    with pytest.raises(InputError, match=r"between 1 and 1\.2 seconds, found 3"):
        write_frames(clip, tmp_path / "out", (1.0, 1.2), 10, 1080, lambda share: None)
    assert not (tmp_path / "out").exists()
