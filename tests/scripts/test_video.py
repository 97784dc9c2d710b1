"""Videos of numbered images, and frames on disk that survive an interruption."""

import subprocess

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from instantavatar_ns.scripts.partial_frames import FRAME_PATTERN, PartialFrames
from instantavatar_ns.scripts.video import check_output, encode, has_alpha, is_folder
from instantavatar_ns.utils.errors import InputError

COUNT, HEIGHT, WIDTH = 5, 50, 33  # an odd width, which H.264 does not take as it is
RED = (200, 30, 40)


def picture(index, channels):
    """A red square that moves to the right, before white or nothing."""
    image = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    image[..., :3] = 255
    image[15:35, 4 * index : 4 * index + 16] = (*RED, 255)
    return image[..., :channels]


def decode(path, width, pixels, *decoder):
    """Frames [T, HEIGHT, width, channels] of a video."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *decoder, "-i", str(path)]
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", pixels, "-"], capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, HEIGHT, width, {"rgb24": 3, "rgba": 4}[pixels])


@pytest.fixture
def images(tmp_path):
    """Pattern of the paths of the pictures, RGBA."""
    for index in range(COUNT):
        Image.fromarray(picture(index, 4)).save(tmp_path / (FRAME_PATTERN % index))
    return tmp_path / FRAME_PATTERN


def test_mp4(images, tmp_path):
    for index in range(COUNT):
        Image.fromarray(picture(index, 3)).save(str(images) % index)
    encode(images, tmp_path / "video.mp4", 12.5)
    assert cv2.VideoCapture(str(tmp_path / "video.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    frames = decode(tmp_path / "video.mp4", WIDTH + 1, "rgb24")
    assert len(frames) == COUNT
    np.testing.assert_allclose(frames[3][25, 20], RED, atol=8)
    np.testing.assert_allclose(frames[3][25, 4], 255, atol=4)
    np.testing.assert_allclose(frames[3][5, WIDTH], 255, atol=4, err_msg="padded with white")


def test_gif(images, tmp_path):
    for index in range(COUNT):
        Image.fromarray(picture(index, 3)).save(str(images) % index)
    encode(images, tmp_path / "video.gif", 10.0)
    with Image.open(tmp_path / "video.gif") as gif:
        assert gif.n_frames == COUNT and gif.size == (WIDTH, HEIGHT)
        assert gif.info["loop"] == 0 and gif.info["duration"] == 100
        gif.seek(4)
        frame = np.asarray(gif.convert("RGB"))
    np.testing.assert_allclose(frame[25, 25], RED, atol=4)
    np.testing.assert_allclose(frame[25, 5], 255, atol=4)


def test_webm_is_transparent(images, tmp_path):
    encode(images, tmp_path / "video.webm", 30.0)
    # FFmpeg's own decoder of VP9 drops the alpha channel.
    frames = decode(tmp_path / "video.webm", WIDTH, "rgba", "-c:v", "libvpx-vp9")
    assert len(frames) == COUNT
    assert frames[2][25, 16, 3] > 250 and frames[2][5, 5, 3] < 5
    np.testing.assert_allclose(frames[2][25, 16, :3], RED, atol=10)


def test_failing_encoder_is_reported(tmp_path):
    with pytest.raises(RuntimeError, match="could not encode"):
        encode(tmp_path / FRAME_PATTERN, tmp_path / "video.mp4", 30.0)


@pytest.mark.parametrize(("name", "alpha", "folder"), [("a.mp4", 0, 0), ("a.GIF", 0, 0), ("a.webm", 1, 0), ("a", 1, 1)])
def test_ending_chooses_the_format(tmp_path, name, alpha, folder):
    check_output(tmp_path / name)
    assert (has_alpha(tmp_path / name), is_folder(tmp_path / name)) == (alpha, folder)


def test_outputs_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"a\.avi: .*ending \.avi\. .*\.mp4, \.gif or \.webm"):
        check_output(tmp_path / "a.avi")
    (tmp_path / "frames").mkdir()
    check_output(tmp_path / "frames")
    (tmp_path / "frames" / "mine.png").touch()
    with pytest.raises(InputError, match="frames: expected a folder that is empty"):
        check_output(tmp_path / "frames")
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(InputError, match=r"a\.mp4: expected a file to write"):
        check_output(tmp_path / "a.mp4")


def test_frames_are_kept_for_the_same_settings(tmp_path):
    output = tmp_path / "video.mp4"
    PartialFrames(output, "same").write(0, picture(0, 3))
    again = PartialFrames(output, "same")
    assert again.has(0) and not again.has(1)
    assert not PartialFrames(output, "other").has(0)
    assert [path.name for path in tmp_path.iterdir()] == [".video.mp4.partial"], "nothing under the final name yet"


def test_files_of_others_are_not_deleted(tmp_path):
    (tmp_path / ".video.mp4.partial").mkdir()
    (tmp_path / ".video.mp4.partial" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="found other files"):
        PartialFrames(tmp_path / "video.mp4", "x")
    assert (tmp_path / ".video.mp4.partial" / "notes.txt").read_text() == "mine"


def test_frames_become_a_folder(tmp_path):
    output = tmp_path / "frames"
    output.mkdir()  # an empty folder of that name does not stand in the way
    frames = PartialFrames(output, "x")
    frames.write(0, picture(0, 4))
    frames.write(1, picture(1, 4))
    frames.finish(frames.images)
    assert sorted(path.name for path in output.iterdir()) == ["00000.png", "00001.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(output / "00001.png")), picture(1, 4))
    assert list(tmp_path.iterdir()) == [output]
