"""Images in the formats of cameras and tools: orientation, bit depth, file types."""

import numpy as np
import pytest
from PIL import Image

from instantavatar_ns.data.images import check_image_size, read_rgb, tell_orientations
from instantavatar_ns.utils.errors import InputError

HEIGHT, WIDTH = 24, 16
PICTURE = (
    np.random.default_rng(0).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
)
# The stored pixels of each EXIF orientation, of a picture that is upright when it is shown.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: np.rot90,
    7: lambda a: np.rot90(a[:, ::-1], -1),
    8: lambda a: np.rot90(a, -1),
}


def write(path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif, **options)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied(tmp_path, orientation, suffix, notices_given):
    path = tmp_path / f"image{suffix}"
    write(path, STORED[orientation](PICTURE), orientation)
    check_image_size(path, (HEIGHT, WIDTH))
    tell_orientations([path], (HEIGHT, WIDTH))
    expected = [f"[yellow]{tmp_path}: Images are turned as their EXIF orientation ({orientation}) says."]
    assert notices_given == (expected if orientation > 1 else [])
    np.testing.assert_allclose(read_rgb(path, (HEIGHT, WIDTH)), PICTURE, atol=4)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_orientation_that_the_cameras_do_not_follow(tmp_path, orientation, notices_given):
    path = tmp_path / "image.png"
    write(path, PICTURE, orientation)
    check_image_size(path, (HEIGHT, WIDTH))
    tell_orientations([path], (HEIGHT, WIDTH))
    assert len(notices_given) == 1 and "Images are not turned" in notices_given[0]
    np.testing.assert_array_equal(read_rgb(path, (HEIGHT, WIDTH)), PICTURE)


def test_orientations_of_some_images_are_told(tmp_path, notices_given):
    """The first image alone says nothing of the others."""
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, orientation in zip(paths, (1, 6, 3, 1), strict=True):
        write(path, STORED[orientation](PICTURE), orientation)
    (tmp_path / "4.png").write_bytes(b"damaged")
    tell_orientations([*paths, tmp_path / "4.png"], (HEIGHT, WIDTH))
    assert len(notices_given) == 1
    assert "2 of 5 images (1.png, 2.png) are turned as their EXIF orientation (3, 6) says." in notices_given[0]


def test_image_on_its_side(tmp_path):
    path = tmp_path / "image.png"
    write(path, PICTURE, 1)
    with pytest.raises(InputError, match=r"\(16, 24\), as cameras\.npz says, found \(24, 16\)\. Turn the images"):
        check_image_size(path, (WIDTH, HEIGHT))
    write(path, PICTURE, 6)
    with pytest.raises(InputError, match=r"found \(16, 24\) \(EXIF orientation 6 applied\)\. Scale the intrinsics"):
        check_image_size(path, (48, 32))


GREY = PICTURE[..., 0]
FORMATS = {
    "16-bit grey": (".png", Image.fromarray(GREY.astype(np.uint16) * 257), np.stack([GREY] * 3, -1)),
    "16-bit grey tiff": (".tif", Image.fromarray(GREY.astype(np.uint16) * 257), np.stack([GREY] * 3, -1)),
    "grey": (".png", Image.fromarray(GREY), np.stack([GREY] * 3, -1)),
    "transparency": (".png", Image.fromarray(np.dstack([PICTURE, GREY])), PICTURE),
    "palette": (".png", Image.fromarray(PICTURE).quantize(64), PICTURE),
    "webp": (".webp", Image.fromarray(PICTURE), PICTURE),
    "bmp": (".bmp", Image.fromarray(PICTURE), PICTURE),
}


@pytest.mark.parametrize(("suffix", "image", "expected"), FORMATS.values(), ids=FORMATS.keys())
def test_formats(tmp_path, suffix, image, expected):
    path = tmp_path / f"image{suffix}"
    image.save(path, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    check_image_size(path, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(read_rgb(path, (HEIGHT, WIDTH)), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.full((HEIGHT, WIDTH), 70000, np.int32), "8 or 16 bits"), (np.zeros((HEIGHT, WIDTH), np.float32), "floating")],
)
def test_pixels_of_unknown_range(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "image.tif")
    with pytest.raises(InputError, match=message):
        read_rgb(tmp_path / "image.tif", (HEIGHT, WIDTH))
