"""RGBA images of the person, and the errors of masks and images that do not fit."""

import numpy as np
import pytest
import torch
from PIL import Image

from instantavatar_ns.data.dataset import AvatarDataset, read_mask
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.errors import InputError
from tests.data.subjects import HEIGHT, WIDTH, write_instantavatar_folder


@pytest.fixture
def folder(tmp_path):
    write_instantavatar_folder(tmp_path / "person", 5)
    return tmp_path / "person"


def dataset(data, split="train", scale_factor=1.0, **options):
    outputs = InstantAvatarDataParserConfig(data=data, **options).setup().get_dataparser_outputs(split)
    return AvatarDataset(outputs, scale_factor)


def test_mask_is_the_alpha_channel(folder):
    data = dataset(folder)[3]
    assert "mask" not in data, "nerfstudio would sample rays on the mask only"
    rgba = dataset(folder).get_numpy_image(3)
    assert rgba.shape == (HEIGHT, WIDTH, 4) and (rgba[..., 0] == 30).all()
    mask = np.asarray(Image.open(folder / "masks" / "mask_0003.png"))
    np.testing.assert_array_equal(rgba[..., 3], mask)
    assert data["image"].shape == (HEIGHT, WIDTH, 3) and data["image"].dtype == torch.float32
    on_white = 30 / 255 * (mask / 255) + 1 - mask / 255
    np.testing.assert_allclose(data["image"][..., 0], on_white, atol=1e-6)


def test_held_out_images_have_their_own_masks(folder):
    Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(folder / "masks" / "mask_0004.png")
    assert dataset(folder, "test").get_numpy_image(0)[..., 3].min() == 255


@pytest.mark.parametrize(("downscale", "scale_factor"), [(2, 1.0), (1, 0.5)])
def test_downscaling_averages(folder, downscale, scale_factor):
    stripes = np.zeros((HEIGHT, WIDTH), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(folder / "masks" / "mask_0000.png")
    small = dataset(folder, downscale=downscale, scale_factor=scale_factor)
    image = small.get_numpy_image(0)
    assert image.shape == (HEIGHT // 2, WIDTH // 2, 4)
    assert set(np.unique(image[..., 3])) <= {127, 128}
    assert (int(small.cameras.height[0]), int(small.cameras.width[0])) == image.shape[:2]


def test_mask_of_another_size(folder):
    Image.fromarray(np.full((HEIGHT // 2, WIDTH // 2), 255, np.uint8)).save(folder / "masks" / "mask_0002.png")
    with pytest.raises(InputError, match=r"mask_0002\.png: .*\(48, 36\), as its image has, found \(24, 18\)"):
        dataset(folder)[2]


def test_black_mask(folder):
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(folder / "masks" / "mask_0001.png")
    with pytest.raises(InputError, match=r"mask_0001\.png: .*all black"):
        dataset(folder)[1]


def test_image_of_another_size(folder):
    Image.fromarray(np.zeros((HEIGHT, 20, 3), np.uint8)).save(folder / "images" / "image_0001.png")
    with pytest.raises(InputError, match=r"image_0001\.png: .*\(48, 36\), found \(48, 20\)"):
        dataset(folder)[1]


@pytest.mark.parametrize("name", ["images/image_0001.png", "masks/mask_0001.png"])
def test_damaged_files(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:60])
    with pytest.raises(InputError, match=name):
        dataset(folder)[1]


SOFT = np.linspace(0, 1, 12).reshape(3, 4)
BINARY = SOFT > 0.4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (BINARY, BINARY),
        (BINARY.astype(np.uint8), BINARY),
        (BINARY.astype(np.int64) * 255, BINARY),
        (SOFT, SOFT),
        (SOFT.astype(np.float16), SOFT),
        (BINARY[..., None].astype(np.float32), BINARY),
    ],
)
def test_npy_masks(tmp_path, values, expected):
    np.save(tmp_path / "mask.npy", values)
    mask = read_mask(tmp_path / "mask.npy")
    assert mask.dtype == np.float32
    np.testing.assert_allclose(mask, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray((SOFT * 255).astype(np.uint8)), SOFT),
        (Image.fromarray(BINARY), BINARY),
        (Image.fromarray(BINARY.astype(np.uint8)), BINARY),
        (Image.fromarray((BINARY[..., None] * np.array([255, 255, 255])).astype(np.uint8)), BINARY),
        (Image.fromarray((BINARY * 65535).astype(np.uint16)), BINARY),
    ],
    ids=["grey", "1 bit", "0 and 1", "colour", "16 bit"],
)
def test_png_masks(tmp_path, image, expected):
    image.save(tmp_path / "mask.png")
    np.testing.assert_allclose(read_mask(tmp_path / "mask.png"), expected, atol=1 / 255)


@pytest.mark.parametrize("values", [np.zeros((3, 4, 5, 6)), np.zeros(0), np.full((3, 4), np.nan), np.array([{}])])
def test_npy_files_that_are_no_masks(tmp_path, values):
    np.save(tmp_path / "mask.npy", values)
    with pytest.raises(InputError, match=r"mask\.npy"):
        read_mask(tmp_path / "mask.npy")
