"""Images with the person's mask as their alpha channel, checked as they are read.

nerfstudio blends RGBA images over white (`alpha_color`) where it evaluates whole images; training takes them as they
are. Its own masks (`mask_filenames`) mean "sample rays only here" and would leave the background unsupervised.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image, UnidentifiedImageError

from instantavatar_ns.errors import InputError


class AvatarDataset(InputDataset):
    """RGBA images of one person at the cameras' resolution; see `InputDataset`."""

    def get_numpy_image(self, image_idx: int) -> UInt8[np.ndarray, "height width 4"]:
        """The image with the mask as alpha (not premultiplied), averaged down to the camera's size.

        Args:
            image_idx: Index in the dataset.

        Raises:
            InputError: The image or the mask is unreadable, of another size than cameras and image say, or all black.
        """
        image_path = self._dataparser_outputs.image_filenames[image_idx]
        mask_path = self.metadata["foreground_masks"][image_idx]
        image, mask = _read_rgb(image_path), read_mask(mask_path)
        if image.shape[:2] != self.metadata["image_size"]:
            message = f"expected an image of height and width {self.metadata['image_size']}, found {image.shape[:2]}"
            raise InputError(image_path, message, "All images of a recording have one size, the one cameras.npz says")
        if mask.shape != image.shape[:2]:
            message = f"expected a mask of height and width {image.shape[:2]}, as its image has, found {mask.shape}"
            raise InputError(mask_path, message, "Make the mask at the image's resolution")
        if mask.max() < 0.5:
            message = "expected a mask with the person in white, found it all black"
            raise InputError(mask_path, message, "Segment the frame again, or leave it out of images, masks and poses")
        alpha = np.rint(mask * 255).astype(np.uint8)
        rgba = np.concatenate([image, alpha[..., None]], axis=2)
        camera_size = (int(self.cameras.width[image_idx]), int(self.cameras.height[image_idx]))
        if camera_size != (image.shape[1], image.shape[0]):
            rgba = cv2.resize(rgba, camera_size, interpolation=cv2.INTER_AREA)
        return rgba


def read_mask(path: Path) -> Float32[np.ndarray, "height width"]:
    """Read a soft or binary mask, 0 (background) to 1 (person).

    Args:
        path: A `.png` (grey, 1-bit or colour) or a `.npy` of booleans, 0 to 1 or 0 to 255.

    Raises:
        InputError: The file is unreadable or not an image.
    """
    advice = "Write the mask as a grey .png, white where the person is, or as a .npy (height, width)"
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as image:
                image = image if image.mode in ("1", "L", "I", "I;16", "F") else image.convert("RGB").convert("L")
                values = np.array(image)
    except (OSError, ValueError, EOFError, UnidentifiedImageError) as error:
        raise InputError(path, f"expected a readable mask ({error})", advice) from error
    values = values[..., 0] if values.ndim == 3 else values
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values.astype(np.float32)).all():
        raise InputError(path, f"expected a mask of shape (height, width), found {values.shape}", advice)
    values = values.astype(np.float32)
    # Binary masks come as 0 and 1 as often as 0 and 255, and 16-bit ones exist.
    largest = 1.0 if values.max() <= 1 else 255.0 if values.max() <= 255 else 65535.0
    return (values / largest).clip(0.0, 1.0)


def _read_rgb(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, UnidentifiedImageError) as error:
        raise InputError(path, f"expected a readable image ({error})", "Extract the frame again") from error
