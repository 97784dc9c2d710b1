"""RGBA images of the person, and the errors of masks and images that do not fit."""

import numpy as np
import pytest
import torch
from PIL import Image

from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.utils.errors import InputError
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


def test_photographs_on_their_side(folder):
    """A phone stores them so and says it; cameras and masks are of the upright pictures."""
    for image, mask in zip(sorted((folder / "images").iterdir()), sorted((folder / "masks").iterdir()), strict=True):
        person = np.zeros((HEIGHT, WIDTH), np.uint8)
        person[8:24, 16:24] = 255
        Image.fromarray(person).save(mask)
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = Image.fromarray(np.dstack([person] * 3)).transpose(Image.Transpose.ROTATE_90)
        turned.save(image.with_suffix(".jpg"), quality=95, exif=exif)
        image.unlink()
    rgba = dataset(folder).get_numpy_image(1)
    assert rgba.shape == (HEIGHT, WIDTH, 4)
    np.testing.assert_allclose(rgba[..., 0], rgba[..., 3], atol=10)

    Image.open(folder / "masks" / "mask_0002.png").rotate(90, expand=True).save(folder / "masks" / "mask_0002.png")
    with pytest.raises(InputError, match=r"mask_0002\.png: .* found \(36, 48\)\. Turn the mask; its image is turned"):
        dataset(folder).get_numpy_image(2)


def test_upright_mask_of_an_image_that_is_not_turned(folder):
    """cameras.npz has the size of the stored pixels, so the EXIF orientation is not applied."""
    image, mask = folder / "images" / "image_0002.png", folder / "masks" / "mask_0002.png"
    Image.open(mask).rotate(90, expand=True).save(mask)
    with pytest.raises(InputError, match=r"Turn the mask; its image has no EXIF orientation"):
        dataset(folder).get_numpy_image(2)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(image).save(image, exif=exif)
    with pytest.raises(InputError, match=r"found \(36, 48\)\. The image is not turned .*upright images"):
        dataset(folder).get_numpy_image(2)
    Image.open(mask).rotate(90, expand=True).save(mask, exif=exif)
    with pytest.raises(InputError, match=r"The mask is turned as its EXIF orientation says, and its image is not"):
        dataset(folder).get_numpy_image(2)


def test_transposed_array(folder):
    path = folder / "masks" / "mask_0002.png"
    np.save(path.with_suffix(".npy"), np.asarray(Image.open(path)).T)
    path.unlink()
    with pytest.raises(InputError, match=r"mask_0002\.npy: .* found \(36, 48\)\. Save the mask as \(height, width\)"):
        dataset(folder).get_numpy_image(2)


def test_black_mask(folder):
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(folder / "masks" / "mask_0001.png")
    with pytest.raises(InputError, match=r"mask_0001\.png: .*all black.*--skip-frames-without-person True"):
        dataset(folder)[1]


def test_faint_mask_among_others(folder):
    """A network leaves traces where nobody is; alone, this file would look like a mask of 0 and 1."""
    faint = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 5 == 0).astype(np.uint8)
    for number in (0, 3):
        Image.fromarray(faint).save(folder / "masks" / f"mask_{number:04d}.png")
        with pytest.raises(InputError, match=rf"mask_000{number}\.png: .*nothing brighter than 0\.4% of white"):
            dataset(folder)[number]
    assert dataset(folder).get_numpy_image(1)[..., 3].max() == 255


def test_image_of_another_size(folder):
    Image.fromarray(np.zeros((HEIGHT, 20, 3), np.uint8)).save(folder / "images" / "image_0001.png")
    with pytest.raises(InputError, match=r"image_0001\.png: .*\(48, 36\), found \(48, 20\)"):
        dataset(folder)[1]


@pytest.mark.parametrize("name", ["images/image_0001.png", "masks/mask_0001.png"])
def test_damaged_files(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:60])
    with pytest.raises(InputError, match=name):
        dataset(folder)[1]
