"""The files of a recording's folder: images and masks, paired by their order, and the body model."""

from __future__ import annotations

import re
from pathlib import Path

from instantavatar_ns.errors import InputError


def list_images(data: Path) -> list[Path]:
    """Images of `<data>/images` in order of their names, numbers by value.

    Raises:
        InputError: There are none.
    """
    return _list_files(data, "images", (".png", ".jpg", ".jpeg"))


def list_masks(data: Path, num_images: int) -> list[Path]:
    """Masks of `<data>/masks`, one an image.

    Raises:
        InputError: There are none, or not as many as images.
    """
    masks = _list_files(data, "masks", (".png", ".npy"))
    if len(masks) != num_images:
        message = f"expected a mask for each of the {num_images} images, found {len(masks)}"
        raise InputError(data / "masks", message, "Give each image one mask; they are paired in order of their names")
    return masks


def find_body_file(data: Path) -> Path | None:
    """The body model in `<data>/body`, None where there is none.

    Raises:
        InputError: There are several, so that one must be chosen.
    """
    folder = data / "body"
    found = sorted(path for path in folder.glob("SMPL_*") if path.suffix in (".npz", ".pkl"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(folder, f"expected one body model, found {names}", "Choose one with the option body_model")
    return found[0] if found else None


def _list_files(data: Path, name: str, suffixes: tuple[str, ...]) -> list[Path]:
    folder = data / name
    files = [path for path in folder.glob("*") if path.suffix.lower() in suffixes]
    if not files:
        message = f"expected {name} ({', '.join(suffixes)}), found none"
        raise InputError(folder, message, "Check the option data: it is the folder that holds images/ and masks/")
    return sorted(
        files, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]
    )
