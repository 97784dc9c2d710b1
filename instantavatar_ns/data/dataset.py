"""Images with the person's mask as their alpha channel, checked as they are read.

nerfstudio blends RGBA images over white (`alpha_color`) where it evaluates whole images; training takes them as they
are. Its own masks (`mask_filenames`) mean "sample rays only here" and would leave the background unsupervised.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from nerfstudio.data.datasets.base_dataset import InputDataset

from instantavatar_ns.data.images import exif_orientation, is_sideways, read_rgb
from instantavatar_ns.data.masks import is_empty, read_mask
from instantavatar_ns.data.subject import Subject, subject_of
from instantavatar_ns.utils.errors import InputError


class AvatarDataset(InputDataset):
    """RGBA images of one person at the cameras' resolution; see `InputDataset`."""

    @property
    def subject(self) -> Subject:
        """The person, and where the masks are."""
        return subject_of(self.metadata)

    def get_numpy_image(self, image_idx: int) -> UInt8[np.ndarray, "height width 4"]:
        """The image with the mask as alpha (not premultiplied), averaged down to the camera's size.

        Args:
            image_idx: Index in the dataset.

        Raises:
            InputError: The image or the mask is unreadable, of another size than cameras and image say, or all black.
        """
        subject, image_path = self.subject, self._dataparser_outputs.image_filenames[image_idx]
        mask_path = subject.mask_filenames[image_idx]
        image = read_rgb(image_path, subject.image_size)
        mask = read_mask(mask_path, subject.mask_encoding)
        if image.shape[:2] != subject.image_size:
            message = f"expected an image of height and width {subject.image_size}, found {image.shape[:2]}"
            raise InputError(image_path, message, "All images of a recording have one size, the one cameras.npz says")
        if mask.shape != image.shape[:2]:
            message = f"expected a mask of height and width {image.shape[:2]}, as its image has, found {mask.shape}"
            advice = "Make the mask at the image's resolution"
            if mask.shape == image.shape[1::-1]:
                advice = _advice_for_turned_mask(image_path, mask_path, subject.image_size)
            raise InputError(mask_path, message, advice)
        if is_empty(mask):
            found = f"nothing brighter than {mask.max():.1%} of white" if mask.max() > 0 else "it all black"
            message = f"expected a mask with the person in white, found {found}"
            advice = (
                "Segment the frame again or, if nobody is in the picture, leave such frames out with the data format's "
                "option --skip-frames-without-person True"
            )
            raise InputError(subject.mask_places[image_idx] if subject.mask_places else mask_path, message, advice)
        alpha = np.rint(mask * 255).astype(np.uint8)
        rgba = np.concatenate([image, alpha[..., None]], axis=2)
        camera_size = (int(self.cameras.width[image_idx]), int(self.cameras.height[image_idx]))
        if camera_size != (image.shape[1], image.shape[0]):
            rgba = cv2.resize(rgba, camera_size, interpolation=cv2.INTER_AREA)
        return rgba


def _advice_for_turned_mask(image_path: Path, mask_path: Path, size: tuple[int, int]) -> str:
    """Advice about a mask whose height and width are swapped; it depends on whether its image was turned."""
    if mask_path.suffix.lower() in (".npy", ".npz"):
        return "Save the mask as (height, width), rows first"
    orientation, is_turned = exif_orientation(image_path, size)
    # A mask's own orientation is always applied.
    if is_sideways(exif_orientation(mask_path, size)[0]) and not (is_sideways(orientation) and is_turned):
        return "The mask is turned as its EXIF orientation says, and its image is not: save the mask without it"
    if not is_sideways(orientation):
        return "Turn the mask; its image has no EXIF orientation by which it would be turned"
    if is_turned:
        return f"Turn the mask; its image is turned as its EXIF orientation ({orientation}) says"
    return (
        f"The image is not turned as its EXIF orientation ({orientation}) says, because height and width in "
        "cameras.npz are those of its stored pixels: if the masks are upright, give cameras.npz height, width and "
        "intrinsic of the upright images; otherwise turn the mask as the pixels are stored"
    )
