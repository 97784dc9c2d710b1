"""Reading clips: upright, in time, in the right colors; and errors of clips that cannot be read."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from instantavatar_ns.process import hdr
from instantavatar_ns.process.video import count_pictures, open_clip, picture_times, read_pictures
from instantavatar_ns.utils.errors import InputError
from tests.process.clips import write_video


def _corner_images(count: int = 6) -> list[np.ndarray]:
    """Grey pictures whose top left corner is red; brighter with time."""
    images = [np.full((48, 80, 3), 60 + 15 * index, np.uint8) for index in range(count)]
    for image in images:
        image[:16, :24] = 220, 30, 30
    return images


def _red_corner(image: np.ndarray) -> tuple[bool, bool]:
    """Whether the red part is in the lower half, and in the right half."""
    rows, columns = np.nonzero((image[..., 0] > 150) & (image[..., 1] < 90))
    return bool(rows.mean() > image.shape[0] / 2), bool(columns.mean() > image.shape[1] / 2)


def test_video_is_read_in_order_with_its_times(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.2, 0.7, 0.8, 1.5]
    clip = open_clip(write_video(tmp_path / "clip.mp4", _corner_images(), times))
    assert (clip.height, clip.width, clip.rotation, clip.focal) == (48, 80, 0, None)
    pictures = [(picture.number, picture.time, picture.rgb()) for picture in read_pictures(clip)]
    assert [number for number, _, _ in pictures] == list(range(6))
    np.testing.assert_allclose([time for _, time, _ in pictures], times, atol=2e-3)
    brightness = [float(image[40, 60].mean()) for _, _, image in pictures]
    np.testing.assert_allclose(brightness, [60 + 15 * index for index in range(6)], atol=4)


def test_start_and_end_keep_the_numbers_of_the_whole_clip(tmp_path: Path) -> None:
    clip = open_clip(write_video(tmp_path / "clip.mp4", _corner_images()))
    assert [picture.number for picture in read_pictures(clip, 0.15, 0.45)] == [2, 3, 4]


@pytest.mark.parametrize(("degrees", "size", "corner"), [(90, (80, 48), (True, False)), (180, (48, 80), (True, True))])
def test_phone_video_on_its_side_is_turned_upright(
    tmp_path: Path, degrees: int, size: tuple[int, int], corner: tuple[bool, bool]
) -> None:
    stored = write_video(tmp_path / "stored.mp4", _corner_images())
    turned = tmp_path / "turned.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-display_rotation", str(degrees)]
    subprocess.run([*command, "-i", str(stored), "-c", "copy", str(turned)], check=True)
    clip = open_clip(turned)
    assert (clip.height, clip.width) == size
    assert clip.rotation == degrees
    image = next(iter(read_pictures(clip))).rgb()
    assert image.shape[:2] == size
    assert _red_corner(image) == corner


def test_ten_bit_video_is_read_as_eight(tmp_path: Path) -> None:
    path = write_video(tmp_path / "deep.mp4", _corner_images(), pixel_format="yuv420p10le")
    image = next(iter(read_pictures(open_clip(path)))).rgb()
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image[40, 60], 60, atol=4)


@pytest.mark.parametrize("transfer", [hdr.PQ, hdr.HLG])
def test_hdr_white_paper_is_nearly_white_and_order_is_kept(transfer: int) -> None:
    # ITU-R BT.2408: white paper is 58 % of a PQ signal and 75 % of HLG's.
    white = 0.58 if transfer == hdr.PQ else 0.75
    steps = np.linspace(0, 1, 101)
    signal = np.append(steps, white)
    image = np.round(signal * 65535).astype(np.uint16)[None, :, None].repeat(3, axis=2)
    shown = hdr.to_screen(image, transfer)[0]
    assert (np.ptp(shown.astype(int), axis=1) <= 1).all()  # grey stays grey
    assert (np.diff(shown[:-1, 0].astype(int)) >= 0).all()
    assert shown[0, 0] == 0
    assert 225 <= shown[-1, 0] <= 250
    assert shown[-2, 0] > shown[-1, 0]  # what is brighter than paper still differs from it


def test_hdr_video_is_brought_to_the_screen(tmp_path: Path) -> None:
    signal = round(0.75 * 65535)
    image = np.full((48, 80, 3), signal, np.uint16)
    path = write_video(tmp_path / "hlg.mp4", [image] * 3, pixel_format="yuv420p10le", color_trc=hdr.HLG)
    shown = next(iter(read_pictures(open_clip(path)))).rgb()
    assert 225 <= shown.mean() <= 250  # the signal itself would be 191


def test_folder_of_pictures_is_a_clip(tmp_path: Path) -> None:
    for index, image in enumerate(_corner_images(12)):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA405] = 26
        Image.fromarray(image).save(tmp_path / f"frame_{index}.jpg", exif=exif, quality=95)
    clip = open_clip(tmp_path)
    assert clip.focal == pytest.approx(26 / 36 * 80)
    brightness = [float(picture.rgb()[40, 60].mean()) for picture in read_pictures(clip)]
    np.testing.assert_allclose(brightness, [60 + 15 * index for index in range(12)], atol=4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "empty file"),
        (b"this is no video " * 100, "expected a video"),
    ],
)
def test_unreadable_clip_is_told_in_a_sentence(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        open_clip(path)
    assert str(path) in str(error.value)


def test_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        open_clip(tmp_path)


def test_file_without_pictures_is_told(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", "sine=duration=0.2"]
    subprocess.run([*command, str(path)], check=True)
    with pytest.raises(InputError, match="without pictures"):
        open_clip(path)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_times_are_known_before_anything_is_decoded(tmp_path: Path, name: str) -> None:
    clip = open_clip(write_video(tmp_path / name, _corner_images(), [0.0, 0.1, 0.2, 0.7, 0.8, 1.5]))
    np.testing.assert_allclose(picture_times(clip), [picture.time for picture in read_pictures(clip)], atol=1e-6)
    assert count_pictures(clip) == 6
