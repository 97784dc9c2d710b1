"""The files of a recording's folder: images and masks, paired by their order, and the body model."""

from __future__ import annotations

import os
import re
from pathlib import Path

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_MASKS = (*_IMAGES, ".npy", ".npz")
_BODIES = (".npz", ".pkl")
_ADVICE = "Check the option data: it is the folder that holds images/ and masks/"
_OF_ANY_NAME = "Check the name: the {} must lie in this folder itself"
# SMPL's files in smplx's layout, and under the names that they are downloaded with.
_SMPL_NAMES = re.compile(r"smpl_(neutral|male|female)|basic_?model_.*", re.IGNORECASE)
_BODY_LEVELS = 6
"""Levels of folders searched for a body model; SMPL's download has its files in the fourth."""
_BODY_ADVICE = (
    "Put SMPL's file there as it was downloaded (basicmodel_*.pkl or SMPL_*.pkl), or choose with --body-model FILE, or "
    "--body-model free for the body of this package"
)


def list_images(data: Path) -> list[Path]:
    """Images of `<data>/images` in order of their names, numbers by value.

    Raises:
        InputError: There are none, or two of the same name, or a link whose file is missing.
    """
    return _list_files(data, "images", _IMAGES)


def list_pictures(folder: Path) -> list[Path]:
    """Pictures in a folder of any name, in order of their names, numbers by value; errors as of `list_images`."""
    return _list_files(folder.parent, folder.name, _IMAGES, "pictures", _OF_ANY_NAME.format("pictures"))


def list_masks(data: Path, images: list[Path]) -> list[Path]:
    """List the masks of `<data>/masks`, one for each of the images.

    Args:
        data: The recording's folder.
        images: Its images, from `list_images`.

    Raises:
        InputError: There are none, or not as many as images, or the numbers in their names are not the images'.
    """
    masks = _list_files(data, "masks", _MASKS)
    image_numbers, mask_numbers = _frame_numbers(images), _frame_numbers(masks)
    if len(masks) != len(images):
        message = f"expected a mask for each of the {len(images)} images, found {len(masks)}"
        single = _without_partner(images, image_numbers, mask_numbers) or _without_partner(
            masks, mask_numbers, image_numbers
        )
        note = f"; there is none for {single}" if len(masks) < len(images) else f"; there is no image for {single}"
        advice = "Give each image one mask; they are paired in order of their names"
        raise InputError(data / "masks", message + (note if single else ""), advice)
    if image_numbers and mask_numbers and len(image_numbers[0]) == len(mask_numbers[0]):
        _check_pairs(images, masks, image_numbers, mask_numbers)
    return masks


def images_in(folder: Path) -> list[Path]:
    """Images of a folder of any name, as `list_images`."""
    return _list_files(folder.parent, folder.name, _IMAGES, "images", _OF_ANY_NAME.format("images"))


def masks_in(folder: Path) -> list[Path]:
    """Masks of a folder of any name, in order of their names, numbers by value."""
    return _list_files(folder.parent, folder.name, _MASKS, "masks", _OF_ANY_NAME.format("masks"))


def find_body_file(data: Path) -> Path | None:
    """The body model in `<data>/body` or its subfolders, None where that folder is missing or empty.

    The folder's name may be in upper case, links are followed, and hidden files do not count.

    Raises:
        InputError: There are several, so that one must be chosen, or something is there, but no body model.
    """
    places = _body_places(data)
    if not places:
        return None
    folder = places[0] if len(places) == 1 else data
    for place in places:
        if not place.is_dir():
            kind = "file" if place.is_file() else "link to something that is not there"
            raise InputError(place, f"expected a folder with the body model, found a {kind}", _BODY_ADVICE)
    files = sorted(path for place in places for path in _files_within(place))
    models = [path for path in files if path.suffix.lower() in _BODIES]
    # Beside SMPL's model may lie the arrays of other programs, or SMPL-H and SMPL-X.
    found = [path for path in models if _SMPL_NAMES.fullmatch(path.stem)] or models
    names = ", ".join(str(path.relative_to(folder)) for path in (found or files)[:8])
    if len(found) > 1:
        raise InputError(folder, f"expected one body model, found {names}", "Choose one with --body-model FILE")
    if not found:
        missing = f"found {names}" if files else f"found folders without files, {_BODY_LEVELS} levels deep"
        raise InputError(folder, f"expected a body model (.pkl or .npz), {missing}", _BODY_ADVICE)
    return found[0]


def has_body(data: Path) -> bool:
    """Find out if a folder has a `body` of its own that is not empty, be it right or wrong."""
    return bool(_body_places(data))


def _body_places(data: Path) -> list[Path]:
    """Files, links and folders named `body`, in upper or lower case, but for empty folders."""
    named = sorted(path for path in data.glob("*") if path.name.lower() == "body")
    return [
        path for path in named if not path.is_dir() or any(not item.name.startswith(".") for item in path.iterdir())
    ]


def _files_within(folder: Path) -> list[Path]:
    """Files in a folder and its subfolders, `_BODY_LEVELS` deep, links followed; a folder behind several links once."""
    files: list[Path] = []
    level, seen = [folder], {folder.resolve()}
    for _ in range(_BODY_LEVELS):
        shown = sorted(path for parent in level for path in parent.iterdir() if not path.name.startswith("."))
        files += [path for path in shown if path.is_file()]
        level = []
        for path in shown:
            if path.is_dir() and path.resolve() not in seen:
                seen.add(path.resolve())
                level.append(path)
    return files


def _list_files(
    data: Path, name: str, suffixes: tuple[str, ...], what: str | None = None, advice: str = _ADVICE
) -> list[Path]:
    """List files; `what` they are where the folder's name does not tell, and `advice` where there are none."""
    folder, what = data / name, what or name
    if not data.is_dir():
        message = "expected a recording's folder, found no such folder"
        raise InputError(data, message, advice)
    shown = sorted(path for path in folder.glob("*") if not _is_hidden(path.relative_to(folder)))
    files = [path for path in shown if path.is_file()]
    wanted = [path for path in files if path.suffix.lower() in suffixes]
    broken = [path for path in shown if path.suffix.lower() in suffixes and not path.exists()]
    if broken:
        message = f"expected {what}, found a link to a file that is not there ({os.readlink(broken[0])})"
        raise InputError(broken[0], message, "Copy the files in place of links, or restore what they point to")
    if not wanted:
        others = sorted({path.suffix.lower() or path.name for path in files})
        folders = [path.name for path in shown if path.is_dir()]
        found = f"only {', '.join(others[:5])} files" if others else "none" if folder.is_dir() else "no such folder"
        if folders and not others:
            found = f"only the folder{'s' if len(folders) > 1 else ''} {', '.join(folders[:5])}"
            advice = f"Put the {what} of one camera into {name}/ itself"
        elif others:
            advice = f"Convert them to one of these formats, such as {suffixes[0]}"
        elif (data / "camera.pkl").is_file():
            advice = "This is a subject of PeopleSnapshot: ns-train instant-avatar people-snapshot-data --data FOLDER"
        raise InputError(folder, f"expected {what} ({', '.join(suffixes)}), found {found}", advice)
    ordered = sorted(wanted, key=_by_value)
    by_stem: dict[str, Path] = {}
    for path in ordered:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            message = f"expected one file a frame, found both {other.name} and {path.name}"
            raise InputError(folder, message, "Keep one of them")
    return ordered


def _is_hidden(path: Path) -> bool:
    """Find out if a path in the folder is hidden, such as the `._*` files that macOS leaves beside others."""
    return any(part.startswith(".") for part in path.parts)


def _by_value(path: Path) -> list[int | str]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def _frame_numbers(paths: list[Path]) -> list[tuple[int, ...]] | None:
    """The numbers in each name that tell the files apart; None where names have none, or unlike many.

    A number that all names share, such as a camera's, is left out.
    """
    numbers = [[int(digits) for digits in re.findall(r"\d+", path.stem)] for path in paths]
    if len({len(row) for row in numbers}) != 1:
        return None
    columns = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    return list(zip(*columns, strict=True)) if columns else None


def _without_partner(
    paths: list[Path], numbers: list[tuple[int, ...]] | None, others: list[tuple[int, ...]] | None
) -> str:
    """Names of the files whose number no other has; empty where the numbers cannot tell."""
    if numbers is None or others is None or not set(others) < set(numbers):
        return ""
    names = [path.name for path, number in zip(paths, numbers, strict=True) if number not in set(others)]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_pairs(
    images: list[Path], masks: list[Path], image_numbers: list[tuple[int, ...]], mask_numbers: list[tuple[int, ...]]
) -> None:
    """Refuse pairs whose numbers differ: somewhere an image and a mask were lost."""
    if _counts_from_0_or_1(image_numbers) and _counts_from_0_or_1(mask_numbers):
        if image_numbers[0] != mask_numbers[0]:
            text = (
                f"Masks are numbered from {mask_numbers[0][0]}, images from {image_numbers[0][0]}; {masks[0].name} is "
                f"taken for the mask of {images[0].name}, and so on."
            )
            notice(masks[0].parent, text)
        return
    for image, mask, number, mask_number in zip(images, masks, image_numbers, mask_numbers, strict=True):
        if number != mask_number:
            message = f"expected the mask of {image.name} at its place in the order, found {mask.name}"
            advice = "Number masks as their images, and delete images without a mask and masks without an image"
            raise InputError(mask.parent, message, advice)


def _counts_from_0_or_1(numbers: list[tuple[int, ...]]) -> bool:
    """Find out if the numbers are 0, 1, 2 ... or 1, 2, 3 ... without a gap."""
    first = numbers[0][0]
    return first in (0, 1) and numbers == [(first + index,) for index in range(len(numbers))]
