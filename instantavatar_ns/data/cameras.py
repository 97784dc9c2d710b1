"""Cameras as a folder's `cameras.npz` gives them, and the checks that every format's cameras pass.

The checks are those that need the matrices alone: rigid transforms, and pinhole cameras of images of their size. That
they look at the person only the masks can tell.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice
from instantavatar_ns.utils.npz import read_npz_entries

_ADVICE = "Write an .npz with intrinsic (3, 3), extrinsic (4, 4) world-to-camera (OpenCV axes), height and width"
_RIGID = 5e-3
"""Deviation of R Rᵀ from the identity that rounded numbers have."""
_SKEW = 1e-4
"""Skew that moves no pixel, as part of the focal length."""
_LEAST_FOCAL = 0.1
"""Focal lengths below this part of the image's larger side, a view of 157 degrees, are no pixels."""
_FARTHEST_CENTER = 10.0
"""Largest principal point, as part of half the image's size; one outside of the image belongs to a cropped image."""
_LAST_ROWS = {3: (0.0, 0.0, 1.0), 4: (0.0, 0.0, 0.0, 1.0)}


def read_cameras(
    path: Path, num_frames: int
) -> tuple[int, int, Float[Tensor, "frames 3 3"], Float[Tensor, "frames 4 4"]]:
    """Read height, width (pixels), intrinsics (pixels) and world-to-camera extrinsics (metres) of `cameras.npz`.

    Args:
        path: The file.
        num_frames: Number of frames; each gets its intrinsic and its extrinsic, of its own or of all.

    Raises:
        InputError: The file is missing, unreadable or incomplete, or its cameras cannot be right; see `check_cameras`.
    """
    arrays, objects = read_npz_entries(path, "the cameras", _ADVICE)
    missing = [key for key in ("intrinsic", "extrinsic", "height", "width") if key not in arrays]
    wrong = [key for key in missing if key in objects]
    if wrong:
        message = f"expected the cameras as numbers, found objects in {', '.join(wrong)}"
        raise InputError(path, message, f"{_ADVICE}, all of them plain numbers")
    if missing:
        found = f" beside {', '.join(sorted(arrays))}" if arrays else ""
        raise InputError(path, f"expected the cameras, found no {', '.join(missing)}{found}", _ADVICE)
    height, width = (pixel_count(path, key, arrays[key]) for key in ("height", "width"))
    intrinsics = _matrices(path, "intrinsic", arrays["intrinsic"], num_frames, ((3, 3), (4, 4)))
    extrinsics = _matrices(path, "extrinsic", arrays["extrinsic"], num_frames, ((4, 4), (3, 4)))
    if intrinsics.shape[1] == 4:
        if not (intrinsics[:, 3] == _LAST_ROWS[4]).all() or intrinsics[:, :3, 3].any():
            message = "expected intrinsic of shape (3, 3), found (4, 4) and more in it than these"
            raise InputError(path, message, "Write a camera matrix in pixels, not a projection matrix")
        intrinsics = intrinsics[:, :3, :3]
    if extrinsics.shape[1] == 3:
        last = np.broadcast_to([[_LAST_ROWS[4]]], (len(extrinsics), 1, 4))
        extrinsics = np.concatenate([extrinsics, last], axis=1)
    check_cameras(path, intrinsics, extrinsics, (height, width))
    return (
        height,
        width,
        torch.from_numpy(intrinsics).expand(num_frames, 3, 3),
        torch.from_numpy(extrinsics).expand(num_frames, 4, 4),
    )


def pixel_count(path: Path, name: str, value: np.ndarray) -> int:
    """Return height or width of a camera's images, pixels.

    Args:
        path: File that it comes from, for errors only.
        name: "height" or "width", for errors only.
        value: Array or number of the file.

    Raises:
        InputError: It is not one whole, positive number.
    """
    value = np.asarray(value)
    advice = f"Write {name} as one whole number of pixels, the same for all frames"
    if value.size != 1:
        raise InputError(path, f"expected one {name}, found {value.size} numbers of shape {value.shape}", advice)
    number = value.reshape(-1)[0]
    if value.dtype.kind not in "iuf" or not np.isfinite(number) or number < 1 or number != np.floor(number):
        found = f"the text {number}" if value.dtype.kind in "US" else number
        raise InputError(path, f"expected {name} in whole pixels, found {found}", advice)
    return int(number)


def check_cameras(
    path: Path,
    intrinsics: Float[np.ndarray, "cameras 3 3"],
    extrinsics: Float[np.ndarray, "cameras 4 4"],
    size: tuple[int, int],
) -> None:
    """Check that cameras can be pinhole cameras in a rigid world.

    Args:
        path: File that they come from, for the errors.
        intrinsics: Camera matrices, pixels.
        extrinsics: World-to-camera transforms.
        size: Height and width of the images, pixels.

    Raises:
        InputError: One cannot: its extrinsic is not rigid, or is mirrored or transposed; or its intrinsic is not in
            pixels of these images, has skew, or is transposed.
    """
    for name, matrices in (("intrinsic", intrinsics), ("extrinsic", extrinsics)):
        for index, matrix in enumerate(matrices):
            place = name if len(matrices) == 1 else f"{name} of frame {index}"
            _check_last_row(path, place, matrix)
            if name == "intrinsic":
                _check_pinhole(path, place, matrix, size)
            else:
                _check_rigid(path, place, matrix)


def _matrices(
    path: Path, name: str, values: np.ndarray, num_frames: int, sizes: tuple[tuple[int, int], ...]
) -> Float[np.ndarray, "cameras rows columns"]:
    """A matrix for all frames, or one for each of them."""
    values = np.asarray(values)
    if values.dtype.kind not in "iuf":
        raise InputError(path, f"expected {name} of real numbers, found the type {values.dtype}", _ADVICE)
    if values.ndim == 3 and values.shape[1:] in sizes and len(values) not in (1, num_frames):
        message = f"expected {name} of shape {sizes[0]} or {(num_frames, *sizes[0])}, found {values.shape}"
        raise InputError(path, message, f"Write one {name} for all frames or one for each of the {num_frames} images")
    if values.shape not in sizes and not (values.ndim == 3 and values.shape[1:] in sizes):
        message = f"expected {name} of shape {sizes[0]} or {(num_frames, *sizes[0])}, found {values.shape}"
        raise InputError(path, message, _ADVICE)
    bad = np.flatnonzero(~np.isfinite(values).reshape(-1, values.shape[-2] * values.shape[-1]).all(axis=1))
    if len(bad):
        place = f" of frame {bad[0]}" if values.ndim == 3 else ""
        raise InputError(path, f"expected finite numbers, found NaN or infinity in {name}{place}", _ADVICE)
    return values.astype(np.float64).reshape(-1, *values.shape[-2:])


def _check_last_row(path: Path, place: str, matrix: np.ndarray) -> None:
    expected = np.array(_LAST_ROWS[len(matrix)])
    if np.allclose(matrix[-1], expected, atol=1e-6):
        return
    message = f"expected {place} with the last row {_text(expected)}, found {_text(matrix[-1])}"
    if np.allclose(matrix[:, -1], expected, atol=1e-6):
        message += ", and these numbers in its last column: it is transposed (for row vectors)"
        raise InputError(path, message, "Transpose it")
    if not matrix.any():
        message += " and nothing but zeros"
    raise InputError(path, message, _ADVICE)


def _check_rigid(path: Path, place: str, matrix: np.ndarray) -> None:
    rotation = matrix[:3, :3]
    squares = rotation @ rotation.T
    scale = np.sqrt(np.trace(squares) / 3)
    if np.linalg.matrix_rank(rotation) < 3:
        raise InputError(path, f"expected {place} to be a rigid transform, found a matrix without inverse", _ADVICE)
    if np.abs(squares - np.eye(3)).max() > _RIGID:
        message = f"expected {place} to be a rigid transform, found "
        if np.abs(squares / scale**2 - np.eye(3)).max() <= _RIGID:
            advice = f"Divide its first three rows by {scale:.6g}: the picture stays the same"
            raise InputError(path, f"{message}the scale {scale:.6g}", advice)
        message += f"rows that are not orthonormal, of lengths {_text(np.linalg.norm(rotation, axis=1))}"
        raise InputError(path, message, "Write rotation and translation without scaling or shearing")
    if np.linalg.det(rotation) < 0:
        message = f"expected {place} to be a rigid transform, found a mirrored one (determinant -1)"
        advice = "Use OpenCV's right-handed axes, x right, y down, z ahead: change the sign of two axes, never of one"
        raise InputError(path, message, advice)


def _is_in_pixels(matrix: np.ndarray, size: tuple[int, int]) -> bool:
    """Find out if a matrix has focal lengths in pixels and its principal point within the image."""
    height, width = size
    is_inside = 0 <= matrix[0, 2] <= width and 0 <= matrix[1, 2] <= height
    return bool(is_inside and min(matrix[0, 0], matrix[1, 1]) >= _LEAST_FOCAL * max(size))


def _check_pinhole(path: Path, place: str, matrix: np.ndarray, size: tuple[int, int]) -> None:
    (fx, skew, cx), (other_skew, fy, cy) = matrix[:2]
    if min(fx, fy) <= 0:
        message = f"expected {place} with positive focal lengths, found fx {fx:.6g} and fy {fy:.6g}"
        raise InputError(path, message, "Use OpenCV's axes, x right, y down, z ahead, and focal lengths in pixels")
    if min(fx, fy) < _LEAST_FOCAL * max(size):
        if _is_in_pixels(np.linalg.pinv(matrix), size):
            message = f"expected {place} in pixels, found the inverse of such a matrix"
            raise InputError(path, message, "Write its inverse, numpy.linalg.inv(intrinsic)")
        message = (
            f"expected {place} in pixels, found focal lengths of {fx:.6g} and {fy:.6g} for images of height and width "
            f"{size}"
        )
        advice = (
            "If it was divided by the image's size, multiply its first row with the width and the second with the "
            "height; if it is in millimetres, convert it to pixels"
        )
        raise InputError(path, message, advice)
    if max(abs(skew), abs(other_skew)) > _SKEW * min(fx, fy):
        message = f"expected {place} without skew, found {_text(matrix[0])} and {_text(matrix[1])}"
        raise InputError(path, message, "Undistort the images to a camera whose pixels are upright rectangles")
    _check_principal_point(path, place, (cx, cy), size)


def _check_principal_point(path: Path, place: str, center: tuple[float, float], size: tuple[int, int]) -> None:
    height, width = size
    cx, cy = center
    # Pixel centers go from 0 to width - 1. That is where doubling puts a centered principal point, too.
    if 0 < cx < width - 1 and 0 < cy < height - 1:
        return
    factors = (2 * cx + 1) / width, (2 * cy + 1) / height
    is_scaled = min(factors) > 1 and max(factors) < 1.25 * min(factors)
    if not is_scaled and (cx, cy) != (0, 0) and max(map(abs, factors)) <= _FARTHEST_CENTER:
        notice(path, "The principal point (cx, cy) lies outside of the images, as it does after cropping them.")
        return
    message = (
        f"expected {place} with a principal point within images of height {height} and width {width}, found cx "
        f"{cx:.6g} and cy {cy:.6g}"
    )
    if is_scaled:
        message += f", as for images {sum(factors) / 2:.2g} times as large"
    raise InputError(path, message, "Scale the intrinsics together with the images; when cropping, shift cx and cy")


def _text(row: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in row) + ")"
