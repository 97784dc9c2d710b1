"""COLMAP's text model: pinhole cameras and the pose of each image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from nerfstudio.data.utils.colmap_parsing_utils import read_cameras_text, read_images_text

from instantavatar_ns.utils.errors import InputError

_ADVICE = "Get cameras.txt and images.txt again from their original source, or export them with COLMAP as text"


@dataclass(frozen=True)
class ColmapImage:
    """Camera of one image.

    Attributes:
        intrinsic: Camera matrix, pixels, the center of the top-left one at (0, 0).
        world_to_camera: In COLMAP's world, whose unit is any, OpenCV's axes.
        size: Height and width, pixels.
    """

    intrinsic: Float[np.ndarray, "3 3"]
    world_to_camera: Float[np.ndarray, "4 4"]
    size: tuple[int, int]


def read_colmap(folder: Path) -> dict[str, ColmapImage]:
    """Cameras of all images by their names.

    Raises:
        InputError: A file is missing or unreadable, or a camera has lens distortion.
    """
    for name in ("cameras.txt", "images.txt"):
        if not (folder / name).is_file():
            raise InputError(folder / name, "expected COLMAP's text model, found no such file", _ADVICE)
    try:
        cameras, images = read_cameras_text(folder / "cameras.txt"), read_images_text(folder / "images.txt")
    except (ValueError, IndexError, KeyError, AssertionError) as error:
        message = f"expected COLMAP's text model ({type(error).__name__}: {error})"
        raise InputError(folder, message, _ADVICE) from error
    found = {}
    for image in images.values():
        camera = cameras.get(image.camera_id)
        if camera is None or camera.model not in ("PINHOLE", "SIMPLE_PINHOLE"):
            kind = "none" if camera is None else camera.model
            message = f"expected a pinhole camera of {image.name}, found {kind}"
            raise InputError(folder / "cameras.txt", message, "Undistort the images with COLMAP first")
        *focal, cx, cy = camera.params
        transform = np.eye(4)
        transform[:3, :3], transform[:3, 3] = image.qvec2rotmat(), image.tvec
        # COLMAP counts the center of the top-left pixel as (0.5, 0.5).
        matrix = np.array([[focal[0], 0, cx - 0.5], [0, focal[-1], cy - 0.5], [0, 0, 1.0]])
        found[image.name] = ColmapImage(matrix, transform, (int(camera.height), int(camera.width)))
    return found
