"""Images of a recording as 8-bit RGB, turned the way up that their cameras have them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""


def read_rgb(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    """Read an image; grey ones get three channels, 16-bit ones are scaled, transparency is dropped.

    Args:
        path: The file.
        size: Height and width that its camera says; they tell whether an EXIF orientation is to be applied.

    Raises:
        InputError: The file is unreadable, or its pixels are neither of 8 nor of 16 bits.
    """
    try:
        with Image.open(path) as image:
            if _is_turned(image, size):
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):
                return _from_16_bits(path, np.array(image))
            if image.mode == "F":
                raise InputError(path, "expected pixels of 8 or 16 bits, found floating point", "Save it as .png")
            return np.array(image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:
        # A damaged file makes its decoder raise nearly anything.
        raise InputError(path, f"expected a readable image ({error})", "Extract the frame again") from error


def check_image_size(path: Path, size: tuple[int, int]) -> None:
    """Compare an image's height and width with those of its camera.

    Args:
        path: The image.
        size: Height and width that its camera says, pixels.

    Raises:
        InputError: The file is no image or has another size.
    """
    try:
        with Image.open(path) as image:
            stored, orientation, turned = (image.height, image.width), _orientation(image), _is_turned(image, size)
    except Exception as error:
        raise InputError(path, f"expected an image ({error})", "Extract the frame again") from error
    found = stored[::-1] if turned and orientation in _SIDEWAYS else stored
    if found != size:
        exchanged = found == size[::-1]
        advice = (
            "Turn the images, or exchange height and width in cameras.npz, and the intrinsic's x and y if they are "
            "exchanged too"
            if exchanged
            else "Scale the intrinsics in cameras.npz together with the images"
        )
        note = f" (EXIF orientation {orientation} applied)" if turned else ""
        message = f"expected an image of height and width {size}, as cameras.npz says, found {found}{note}"
        raise InputError(path, message, advice)


def tell_orientations(paths: Sequence[Path], size: tuple[int, int]) -> None:
    """Say what becomes of the EXIF orientations of a recording's images, where some have one.

    Args:
        paths: The images. A file that cannot be read is left to those who read its pixels.
        size: Height and width that the camera says, pixels.
    """
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda path: _header_orientation(path, size), paths))
    for turned in (True, False):
        rows = {
            index: fact[0]
            for index, fact in enumerate(found)
            if fact is not None and fact[1] == turned and fact[0] in range(2, 9)
        }
        if not rows:
            continue
        which = "Images"
        if len(rows) < len(paths):
            names = ", ".join(paths[index].name for index in list(rows)[:3]) + (", ..." if len(rows) > 3 else "")
            which = f"{len(rows)} of {len(paths)} images ({names})"
        values = f"EXIF orientation ({', '.join(map(str, sorted(set(rows.values()))))})"
        text = f"{which} are turned as their {values} says"
        if not turned:
            text = (
                f"{which} are not turned as their {values} says, because height and width in cameras.npz are those of "
                "the stored pixels"
            )
        notice(paths[0].parent, f"{text}.")


def exif_orientation(path: Path, size: tuple[int, int]) -> tuple[int, bool]:
    """An image's EXIF orientation, 1 where it has none, and whether `read_rgb` applies it.

    Args:
        path: The image.
        size: Height and width that its camera says, pixels.
    """
    with Image.open(path) as image:
        return _orientation(image), _is_turned(image, size)


def is_sideways(orientation: int) -> bool:
    """Find out if an EXIF orientation exchanges height and width."""
    return orientation in _SIDEWAYS


def _header_orientation(path: Path, size: tuple[int, int]) -> tuple[int, bool] | None:
    """As `exif_orientation`, from the file's header alone; None of a file that cannot be read."""
    try:
        with Image.open(path) as image:
            # A PNG's own method reads all pixels, in search of an orientation behind them.
            exif = Image.Image.getexif(image)
            orientation = exif.get(ExifTags.Base.Orientation, 1)
            return orientation, _turns(orientation, (image.height, image.width), size)
    except Exception:
        # A damaged file makes its decoder raise nearly anything.
        return None


def _orientation(image: Image.Image) -> int:
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _is_turned(image: Image.Image, size: tuple[int, int]) -> bool:
    """Apply the EXIF orientation always, but where the stored pixels alone have the right size."""
    return _turns(_orientation(image), (image.height, image.width), size)


def _turns(orientation: int, stored: tuple[int, int], size: tuple[int, int]) -> bool:
    if orientation not in range(2, 9):
        return False
    return not (orientation in _SIDEWAYS and stored == size and stored != size[::-1])


def _from_16_bits(path: Path, values: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
    if values.min() < 0 or values.max() > 65535:
        message = f"expected pixels of 8 or 16 bits, found values from {values.min()} to {values.max()}"
        raise InputError(path, message, "Save it as an 8-bit .png")
    grey = np.rint(values / 257.0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
