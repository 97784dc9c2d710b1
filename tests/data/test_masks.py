"""Masks in the encodings of segmenters, told apart over a whole folder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instantavatar_ns.data.masks import MaskEncoding, empty_masks, find_encoding, read_mask
from instantavatar_ns.utils.errors import InputError

ROWS, COLUMNS = np.mgrid[:48, :32]
DISTANCE = np.hypot((ROWS - 24) / 18, (COLUMNS - 15) / 10)
BINARY = DISTANCE < 1
SOFT = np.clip(3 - 2.5 * DISTANCE, 0, 1)
BYTES = np.rint(SOFT * 255).astype(np.uint8)


def shifted(values: np.ndarray, frame: int) -> np.ndarray:
    """The person a little to the side in each frame."""
    return np.roll(values, frame, axis=1)


def read_folder(folder: Path, write, count: int = 3) -> list[np.ndarray]:
    """Write masks as `write(folder, stem, frame)` does, and read them as one folder."""
    for frame in range(count):
        write(folder, f"mask_{frame}", frame)
    paths = sorted(folder.iterdir())
    encoding = find_encoding(paths)
    return [read_mask(path, encoding) for path in paths]


def image_writer(make, suffix=".png", **options):
    def write(folder, stem, frame):
        image = make(frame)
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(folder / (stem + suffix), **options)

    return write


def array_writer(make, suffix=".npy"):
    def write(folder, stem, frame):
        if suffix == ".npz":
            np.savez_compressed(folder / (stem + suffix), make(frame))
        else:
            np.save(folder / (stem + suffix), make(frame))

    return write


def palette(indices: np.ndarray, *colors: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8)).convert("P")
    image.putdata(indices.flatten().tolist())
    image.putpalette([value for color in colors for value in color] + [0] * (768 - 3 * len(colors)))
    return image


def stacked(*channels: np.ndarray) -> np.ndarray:
    return np.stack([np.broadcast_to(channel, BYTES.shape) for channel in channels], axis=-1).astype(np.uint8)


def soft(frame):
    return shifted(BYTES, frame)


def binary(frame):
    return shifted(BINARY, frame)


def noise(frame):
    return np.random.default_rng(frame).integers(0, 255, (*BYTES.shape, 3))


RED, GREEN = (128, 0, 0), (0, 128, 0)
WRITERS = {
    # Soft masks
    "grey": (image_writer(soft), SOFT),
    "colour": (image_writer(lambda k: stacked(soft(k), soft(k), soft(k))), SOFT),
    "red": (image_writer(lambda k: stacked(soft(k), 0, 0)), SOFT),
    "16 bits": (image_writer(lambda k: soft(k).astype(np.uint16) * 257), SOFT),
    "12 of 16 bits": (image_writer(lambda k: soft(k).astype(np.uint16) * 16), SOFT),
    "brightest 180": (image_writer(lambda k: np.rint(shifted(SOFT, k) * 180).astype(np.uint8)), SOFT),
    "webp": (image_writer(soft, ".webp", lossless=True), SOFT),
    "bmp": (image_writer(soft, ".bmp"), SOFT),
    "tiff of fractions": (image_writer(lambda k: shifted(SOFT, k).astype(np.float32), ".tif"), SOFT),
    "grey palette": (image_writer(lambda k: palette(soft(k), *[(i, i, i) for i in range(256)])), SOFT),
    "grey palette, white first": (
        image_writer(lambda k: palette(255 - soft(k), *[(255 - i,) * 3 for i in range(256)])),
        SOFT,
    ),
    "alpha on white": (image_writer(lambda k: stacked(255, 255, 255, soft(k))), SOFT),
    "alpha of a cut-out": (image_writer(lambda k: np.dstack([noise(k), soft(k)]).astype(np.uint8)), SOFT),
    "alpha of grey": (image_writer(lambda k: stacked(100, soft(k))), SOFT),
    "alpha of a palette": (
        image_writer(lambda k: palette(binary(k), RED, GREEN), transparency=0),
        BINARY,
    ),
    "opaque": (image_writer(lambda k: stacked(soft(k), soft(k), soft(k), 255)), SOFT),
    "npy of fractions": (array_writer(lambda k: shifted(SOFT, k)), SOFT),
    "npy of half fractions": (array_writer(lambda k: shifted(SOFT, k).astype(np.float16)), SOFT),
    "npy of fractions that overshoot": (array_writer(lambda k: shifted(SOFT, k) * 1.02), SOFT),
    "npy of floats to 255": (array_writer(lambda k: shifted(SOFT, k) * 255), SOFT),
    "npy of one channel": (array_writer(lambda k: shifted(SOFT, k)[..., None].astype(np.float32)), SOFT),
    "npy of four channels": (array_writer(lambda k: stacked(255, 255, 255, soft(k))), SOFT),
    "npz": (array_writer(lambda k: shifted(SOFT, k), ".npz"), SOFT),
    "npy of numbers as objects": (array_writer(lambda k: shifted(SOFT, k).astype(object)), SOFT),
    "npz of numbers as objects": (array_writer(lambda k: shifted(SOFT, k).astype(object), ".npz"), SOFT),
    # Binary masks and labels
    "1 bit": (image_writer(binary), BINARY),
    "0 and 1": (image_writer(lambda k: binary(k).astype(np.uint8)), BINARY),
    "0 and 1, in colour": (image_writer(lambda k: stacked(binary(k), binary(k), binary(k))), BINARY),
    "0 and 15": (image_writer(lambda k: binary(k).astype(np.uint8) * 15), BINARY),
    "0 and 200": (image_writer(lambda k: binary(k).astype(np.uint8) * 200), BINARY),
    "0 and 65535": (image_writer(lambda k: binary(k).astype(np.uint16) * 65535), BINARY),
    "0 and 1000": (image_writer(lambda k: binary(k).astype(np.uint16) * 1000), BINARY),
    "dark colour": (image_writer(lambda k: stacked(binary(k) * 128, 0, 0)), BINARY),
    "parts": (image_writer(lambda k: np.where(binary(k), 1 + ROWS // 4, 0).astype(np.uint8)), BINARY),
    "class and border": (
        image_writer(lambda k: np.where(binary(k), np.where(ROWS < 8, 255, 15), 0).astype(np.uint8)),
        BINARY,
    ),
    "colour palette": (image_writer(lambda k: palette(binary(k), (0, 0, 0), RED)), BINARY),
    "colour palette, two": (
        image_writer(lambda k: palette(np.where(binary(k), 1 + ROWS % 2, 0), (0, 0, 0), RED, GREEN)),
        BINARY,
    ),
    "npy of booleans": (array_writer(binary), BINARY),
    "npy of a promptable segmenter": (array_writer(lambda k: binary(k)[None]), BINARY),
    "npy of a batch": (array_writer(lambda k: binary(k)[None, None]), BINARY),
    "npy of 0 and 255": (array_writer(lambda k: binary(k).astype(np.int64) * 255), BINARY),
    "npy of 0.0 and 255.0": (array_writer(lambda k: binary(k) * 255.0), BINARY),
}


@pytest.mark.parametrize(("write", "expected"), WRITERS.values(), ids=WRITERS.keys())
def test_encodings(tmp_path, write, expected):
    for frame, mask in enumerate(read_folder(tmp_path, write)):
        assert mask.dtype == np.float32
        np.testing.assert_allclose(mask, shifted(expected, frame), atol=0.025)


def test_jpg(tmp_path):
    for frame, mask in enumerate(read_folder(tmp_path, image_writer(soft, ".jpg", quality=95))):
        np.testing.assert_allclose(mask, shifted(SOFT, frame), atol=0.08)


@pytest.mark.parametrize("empty", [0, 2], ids=["first", "last"])
@pytest.mark.parametrize("trace", [0, 1], ids=["black", "trace of 1"])
@pytest.mark.parametrize(
    "make",
    [
        lambda mask: mask,
        lambda mask: np.dstack([mask] * 3),
        lambda mask: np.dstack([np.full_like(mask, 255)] * 3 + [mask]),
    ],
    ids=["grey", "colour", "alpha"],
)
def test_frame_without_a_person_is_not_rescaled(tmp_path, make, trace, empty):
    masks = read_folder(
        tmp_path, image_writer(lambda k: make(np.full_like(BYTES, trace) * (COLUMNS > 3) if k == empty else soft(k)))
    )
    for frame, mask in enumerate(masks):
        if frame == empty:
            assert mask.max() < 1.1 / 255
        else:
            np.testing.assert_allclose(mask, shifted(SOFT, frame), atol=0.01)


def test_empty_masks_are_found(tmp_path):
    write = image_writer(lambda k: soft(k) * (k != 1))
    read_folder(tmp_path, write)
    paths = sorted(tmp_path.iterdir())
    assert empty_masks(paths, find_encoding(paths)) == (False, True, False)
    write(tmp_path, "mask_1", 2)  # a changed file is read anew
    assert empty_masks(paths, find_encoding(paths)) == (False, False, False)


def test_labels_are_named(tmp_path, notices_given):
    read_folder(tmp_path, image_writer(lambda k: np.where(binary(k), 2 + 5 * (ROWS % 2), 0).astype(np.uint8)))
    find_encoding(sorted(tmp_path.iterdir()))
    assert len(notices_given) == 1 and "the labels 2, 7; all of them are taken for the person" in notices_given[0]


def test_first_white_on_black_mask_is_enough(tmp_path):
    paths = [tmp_path / f"mask_{number}.png" for number in range(3)]
    Image.fromarray(soft(0)).save(paths[0])
    for path in paths[1:]:
        path.write_bytes(b"not read")
    assert find_encoding(paths) == MaskEncoding()


REFUSED = {
    "labels in a jpg": (image_writer(lambda k: binary(k).astype(np.uint8) * 15, ".jpg"), "in .jpg files"),
    "cut-out without alpha": (
        image_writer(lambda k: (noise(k) * binary(k)[..., None]).astype(np.uint8)),
        "a picture in many colours",
    ),
    "logits": (array_writer(lambda k: shifted(SOFT, k) * 20 - 10), "numbers from 0, found -10"),
    "several candidates": (array_writer(lambda k: np.stack([binary(k)] * 5)), "several masks of one image"),
    "no pixels": (array_writer(lambda k: np.zeros(0)), r"found \(0,\)"),
    "NaN": (array_writer(lambda k: np.full((3, 4), np.nan)), "NaN"),
    "objects": (array_writer(lambda k: np.array([{}])), "of numbers, found objects"),
    "text": (array_writer(lambda k: np.array([["a", "b"]])), "of numbers"),
    "32 bits": (array_writer(lambda k: binary(k) * 100000), "at most 16 bits"),
}


@pytest.mark.parametrize(("write", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(tmp_path, write, message):
    with pytest.raises(InputError, match=message):
        read_folder(tmp_path, write)


def test_mixed_folders(tmp_path):
    alpha, grey = stacked(255, 255, 255, BYTES), BYTES
    cases = {
        "grey": ((grey, alpha), "black and white"),
        "alpha": ((alpha, grey), "in the alpha"),
        "bits": ((grey, grey.astype(np.uint16) * 257), "values up to 255, as in others of its folder, found 65535"),
    }
    for name, (kinds, message) in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(InputError, match=rf"mask_1\.png: .*{message}"):
            read_folder(folder, image_writer(lambda k, kinds=kinds: kinds[min(k, 1)]), 2)
