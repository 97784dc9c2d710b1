"""Masks as segmenters write them: place and meaning of their values, decided over a whole folder.

A file alone does not tell its range: the mask of a frame without the person may hold nothing brighter than 1, in a
folder of masks from 0 to 255.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, Shaped
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image, ImageOps
from rich.progress import track

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice
from instantavatar_ns.utils.npz import entry_content, numbers_of_objects

_ADVICE = "Write the mask as a grey .png, white where the person is, or as a .npy (height, width)"
_LOSSY = (".jpg", ".jpeg")
_MOST_LABELS = 64
"""More distinct values than this are grey levels."""
_NEARLY_WHITE = 0.98
"""Lossy files reach white only roughly."""


@dataclass(frozen=True)
class MaskEncoding:
    """Meaning of the values in a folder's mask files, the same for all of them.

    Attributes:
        white: Value of a pixel of the person; lower values are soft edges. None where the values are labels: 0 is the
            background, any other value the person.
        alpha: Whether the mask is the alpha channel of its file.
        inverted: Whether the person is black, as in data sets that mask what moves out.
    """

    white: float | None = 255.0
    alpha: bool = False
    inverted: bool = False


WHITE_ON_BLACK = MaskEncoding()


@dataclass(frozen=True)
class _Values:
    """Values of one mask file, or of all of a folder.

    Attributes:
        alpha: Whether they are those of an alpha channel.
        largest: The largest value.
        counts: Pixels of each value from 0 to 65535; None where there are fractions.
    """

    alpha: bool
    largest: float
    counts: Int[np.ndarray, "65536"] | None


def find_encoding(paths: Sequence[Path]) -> MaskEncoding:
    """Decide how the masks of a folder are to be read.

    Files are read until one holds white on black, which most folders begin with; other encodings need all files.

    Args:
        paths: All masks of the folder.

    Raises:
        InputError: A file is unreadable or holds no mask, or labels were stored with losses.
    """
    return _find_encoding(tuple(paths), _stamps(paths))


def _stamps(paths: Sequence[Path]) -> tuple[tuple[int, int], ...]:
    """Time of change and size of each file, the key under which something read from them is kept."""
    stats = [path.stat() for path in paths]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)


@lru_cache(maxsize=8)
def _find_encoding(paths: tuple[Path, ...], stamps: tuple[tuple[int, int], ...]) -> MaskEncoding:
    first = _file_values(paths[0])
    if _is_white_on_black(first):
        return MaskEncoding(alpha=first.alpha)
    total, pool = first, ThreadPoolExecutor()
    try:
        values = pool.map(_file_values, paths[1:])
        for file in track(values, "Reading masks", total=len(paths) - 1, console=CONSOLE, transient=True):
            if _is_white_on_black(file):
                return MaskEncoding(alpha=file.alpha)
            total = _merged(total, file)
    finally:
        pool.shutdown(cancel_futures=True)
    return _decide(paths[0].parent, total, lossy=any(path.suffix.lower() in _LOSSY for path in paths))


def _is_white_on_black(values: _Values) -> bool:
    """Find out if white occurs, in 8 bits, and most of the pixels that are not black are bright."""
    if values.counts is None or not 255 * _NEARLY_WHITE <= values.largest <= 255:
        return False
    return values.counts[128:].sum() > values.counts[1:128].sum()


def _merged(first: _Values, second: _Values) -> _Values:
    if first.alpha != second.alpha:
        # A black picture tells nothing of the others, whose alpha channels are masks.
        return first if first.alpha else second
    counts = None if first.counts is None or second.counts is None else first.counts + second.counts
    return _Values(first.alpha, max(first.largest, second.largest), counts)


def _decide(folder: Path, values: _Values, *, lossy: bool) -> MaskEncoding:
    """The encoding of a folder without white on black in 8 bits."""
    if values.counts is None:
        # A resized mask of 0 to 1 can overshoot a little.
        return MaskEncoding(1.0 if values.largest <= 2 else 255.0 if values.largest <= 255 else 65535.0, values.alpha)
    labels = np.flatnonzero(values.counts)
    labels = labels[labels > 0]
    top = 255 if values.largest <= 255 else 65535
    half = top // 2 + 1
    bright = values.counts[half:].sum() > values.counts[1:half].sum()
    if len(labels) > 1 and (bright or len(labels) > _MOST_LABELS):
        white = float(top if values.largest >= _NEARLY_WHITE * top else values.largest)
        if white != top:
            notice(folder, f"The brightest value of all masks is {white:.0f} of {top}; it is taken for white.")
        return MaskEncoding(white, values.alpha)
    names = ", ".join(map(str, labels[:8])) + (", ..." if len(labels) > 8 else "")
    if len(labels) and lossy:
        message = f"expected white where the person is, found nothing but the values {names} in .jpg files"
        raise InputError(folder, message, "Write labels without losses, as .png, or masks in black and white")
    if len(labels) > 1:
        text = (
            f"The masks hold the labels {names}; all of them are taken for the person. If some are not, write masks of "
            "the person alone."
        )
        notice(folder, text)
    return MaskEncoding(None, values.alpha)


def _file_values(path: Path) -> _Values:
    channels = _read_channels(path)
    alpha = _is_in_alpha(channels)
    if not alpha:
        _check_no_picture(path, channels)
    values = _only(channels, alpha=alpha)
    if values.dtype.kind == "f" and (values != np.floor(values)).any():
        return _Values(alpha, float(values.max()), None)
    largest = int(values.max())
    if largest > 65535:
        raise InputError(path, f"expected a mask of at most 16 bits, found the value {largest}", _ADVICE)
    return _Values(alpha, largest, np.bincount(values.astype(np.uint16).ravel(), minlength=65536))


def read_mask(path: Path, encoding: MaskEncoding) -> Float32[np.ndarray, "height width"]:
    """Read a soft or binary mask, 0 (background) to 1 (person).

    Args:
        path: An image, or a `.npy` or `.npz` of shape (height, width), with axes of length 1 or without.
        encoding: Meaning of the values, from `find_encoding` of the folder.

    Raises:
        InputError: The file is unreadable or holds no mask, or is not of the folder's encoding.
    """
    channels = _read_channels(path)
    if not encoding.alpha and _is_in_alpha(channels):
        message = "expected a mask in black and white, as others of its folder, found one in the alpha channel"
        raise InputError(path, message, "Write all masks of the folder alike")
    if encoding.alpha and not _has_alpha(channels) and channels.any():
        message = "expected a mask in the alpha channel, as others of its folder, found no such channel"
        raise InputError(path, message, "Write all masks of the folder alike")
    values = _only(channels, alpha=encoding.alpha)
    mask = _shown(path, values, encoding)
    return 1.0 - mask if encoding.inverted else mask


def _shown(
    path: Path, values: Shaped[np.ndarray, "height width"], encoding: MaskEncoding
) -> Float32[np.ndarray, "..."]:
    """Values of a file as shares of white."""
    if encoding.white is None:
        return (values > 0).astype(np.float32)
    if values.max() > 2 * encoding.white:
        message = f"expected values up to {encoding.white:.0f}, as in others of its folder, found {values.max():.6g}"
        raise InputError(path, message, "Write all masks of the folder alike")
    return (values.astype(np.float32) / np.float32(encoding.white)).clip(0.0, 1.0)


@lru_cache(maxsize=8)
def _empty_masks(
    paths: tuple[Path, ...], stamps: tuple[tuple[int, int], ...], encoding: MaskEncoding
) -> tuple[bool, ...]:
    with ThreadPoolExecutor() as pool:
        empty = pool.map(lambda path: is_empty(read_mask(path, encoding)), paths)
        return tuple(track(empty, "Looking for the person", total=len(paths), console=CONSOLE, transient=True))


def empty_masks(paths: Sequence[Path], encoding: MaskEncoding) -> tuple[bool, ...]:
    """Mark the masks that show no person.

    Args:
        paths: Masks of a folder.
        encoding: Meaning of their values.

    Raises:
        InputError: As of `read_mask`.
    """
    return _empty_masks(tuple(paths), _stamps(paths), encoding)


def is_empty(mask: Float32[np.ndarray, "height width"]) -> bool:
    """Find out if a mask shows no person: no pixel is more likely to be of the person than not."""
    return bool(mask.max() < 0.5)


def _read_channels(path: Path) -> Shaped[np.ndarray, "..."]:
    """Numbers of a mask file, (height, width) or (height, width, channels)."""
    try:
        if path.suffix.lower() in (".npy", ".npz"):
            values = _without_unit_axes(_read_array(path))
        else:
            with Image.open(path) as image:
                values = _image_channels(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except Exception as error:
        # A damaged file makes its decoder raise nearly anything.
        raise InputError(path, f"expected a readable mask ({error})", _ADVICE) from error
    if values.dtype.kind not in "biuf":
        raise InputError(path, f"expected a mask of numbers, found the type {values.dtype}", _ADVICE)
    if values.size == 0 or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))):
        several = " (several masks of one image, of which one is wanted)" if values.ndim == 3 else ""
        raise InputError(path, f"expected a mask of shape (height, width), found {values.shape}{several}", _ADVICE)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(path, "expected a mask of finite numbers, found NaN or infinity", _ADVICE)
    if values.dtype.kind in "if" and values.min() < 0:
        message = f"expected a mask of numbers from 0, found {values.min():.4g}"
        raise InputError(path, message, "Threshold a network's outputs first, such as logits > 0")
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def _read_array(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        is_array = file.read(6) == b"\x93NUMPY"
    if is_array:
        return _numbers(path, lambda: np.load(path, allow_pickle=False), path.read_bytes)
    loaded = np.load(path, allow_pickle=False)
    with loaded:
        keys = [key for key in ("mask", "masks") if key in loaded.files] or loaded.files
        if len(keys) != 1:
            raise InputError(path, f"expected one array or one named mask, found {', '.join(keys) or 'none'}", _ADVICE)
        name = keys[0]
        return _numbers(path, lambda: loaded[name], lambda: entry_content(loaded, name))


def _numbers(path: Path, read: Callable[[], np.ndarray], content: Callable[[], bytes]) -> np.ndarray:
    """An array that NumPy can `read`, or that of the numbers that its `content` holds as objects."""
    try:
        return read()
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
    values = numbers_of_objects(content(), path)
    if values is None:
        raise InputError(path, "expected a mask of numbers, found objects", f"{_ADVICE} of plain numbers")
    return values


def _without_unit_axes(values: np.ndarray) -> np.ndarray:
    """(1, height, width), as promptable segmenters return it, and (height, width, 1) as (height, width)."""
    while values.ndim > 2 and 1 in values.shape:
        values = values.squeeze(values.shape.index(1))
    return values


def _image_channels(image: Image.Image) -> np.ndarray:
    if "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBA", "RGBa"):
        return np.array(image.convert("RGBA"))
    if image.mode == "P":
        # Segmenters store labels as indices of a colour palette; programs that shrink files make grey palettes.
        colors = np.array(image.convert("RGB"))
        is_grey = (colors == colors[..., :1]).all()
        return colors[..., 0] if is_grey else np.array(image)
    if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        return np.array(image)
    return np.array(image.convert("RGB"))


def _is_in_alpha(channels: Shaped[np.ndarray, "..."]) -> bool:
    """Find out if an alpha channel hides anything, so that it is the mask."""
    return _has_alpha(channels) and bool(channels[..., 3].min() < channels.max())


def _has_alpha(channels: Shaped[np.ndarray, "..."]) -> bool:
    return channels.ndim == 3 and channels.shape[2] == 4


def _only(channels: Shaped[np.ndarray, "..."], *, alpha: bool) -> Shaped[np.ndarray, "height width"]:
    """The alpha channel, or the brightest of the colours."""
    if channels.ndim == 2:
        return channels
    if alpha:
        return channels[..., 3]
    return np.maximum(np.maximum(channels[..., 0], channels[..., 1]), channels[..., 2])


def _check_no_picture(path: Path, channels: Shaped[np.ndarray, "..."]) -> None:
    """Refuse a photograph, or a person cut out of it, in place of a mask."""
    if channels.ndim == 2:
        return
    colors = channels[..., :3]
    if (colors.max(axis=2) - colors.min(axis=2)).max() <= 16:  # grey, but for a lossy file's errors
        return
    packed = colors.astype(np.int64) @ np.array([65536, 256, 1])
    if len(np.unique(packed)) > 256:
        raise InputError(path, "expected a mask, found a picture in many colours without an alpha channel", _ADVICE)
