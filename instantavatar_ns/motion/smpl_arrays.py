"""SMPL's parameters among named arrays: the names and shapes that programs give them.

A name is read only where its meaning is certain; what a file holds instead is listed in the error. SMPL-H and SMPL-X
share SMPL's root and its first 21 body joints; what follows, fingers and face, SMPL has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.smpl import NUM_JOINTS
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

CAMERA_TRANSLATIONS = ("cam_trans", "pred_trans")
"""SMPL's translation in the camera: ROMP, TRAM."""
TRANSLATIONS = ("transl", "trans", "smpl_trans", *CAMERA_TRANSLATIONS)
"""SMPL's translation: smplx, AMASS and most others, AIST++; in the camera."""
BETAS = ("betas", "smpl_betas", "shapes", "shape", "pred_shape")
"""SMPL's shape coefficients: smplx and most others, ROMP, EasyMocap, PromptHMR, TRAM."""
_WHOLE = ("poses", "thetas", "smpl_poses", "smpl_thetas", "pose", "pred_rotmat", "rotmat")
_PARTS = (("global_orient", "body_pose"), ("root_orient", "pose_body"))
_JOINTS = {NUM_JOINTS: "SMPL", 22: "SMPL-H or SMPL-X without hands", 52: "SMPL-H", 55: "SMPL-X"}
_BODY_JOINTS = 22
"""Root and body joints, which SMPL, SMPL-H and SMPL-X share."""
_HANDS = NUM_JOINTS - _BODY_JOINTS
"""SMPL's last joints, which turn whole hands."""
_OTHER_ROTATIONS = {4: "quaternions", 6: "6D rotations"}
_NOT_ORTHOGONAL = 0.02
_SPREAD_BETAS = 0.5
"""Standard deviation over the frames that estimators of single images stay below, mostly."""

_ARRAYS = (
    "Give an .npz with poses (T, 72) and trans (T, 3), thetas (T, 72) and transl (T, 3), or global_orient (T, 3), "
    "body_pose (T, 69) and transl (T, 3)"
)
ADVICE = {
    "camera": f"{_ARRAYS}, and the person's betas (10,)",
    "world": f"{_ARRAYS}; an AMASS .npz (SMPL, SMPL-H or SMPL-X); an AIST++ .pkl; or a .bvh",
}
"""What to give in place of a file without SMPL's poses: to train on, in the camera, and as a motion, in the world."""


def described(content: Any) -> str:
    """The names and shapes of what a file holds, for an error."""
    if not isinstance(content, dict):
        return "no named arrays" if content is None or isinstance(content, list) else type(content).__name__
    parts = _named(content, "")
    return ", ".join(parts[:12]) + (f" and {len(parts) - 12} more" if len(parts) > 12 else "") or "nothing"


def _named(content: Mapping[str, Any], prefix: str) -> list[str]:
    parts = []
    for name, value in sorted(content.items()):
        if isinstance(value, dict) and value:
            parts += _named(value, f"{prefix}{name}/")
        else:
            shape = getattr(value, "shape", None)
            parts.append(f"objects in {prefix}{name}" if shape is None else f"{prefix}{name} {tuple(shape)}")
    return parts


def missing_part(content: Any) -> str | None:
    """Name of the array that would complete the rotations somewhere in a file: the root's, or those of the body."""
    if not isinstance(content, dict):
        return None
    for parts in _PARTS:
        missing = [part for part in parts if part not in content]
        if len(missing) == 1:
            return missing[0]
    return next(filter(None, map(missing_part, content.values())), None)


def has_poses(arrays: Mapping[str, Any]) -> bool:
    """Find out if there are rotations of all body joints under a known name."""
    whole = any(isinstance(arrays.get(name), ndarray) or _is_ragged(arrays.get(name)) for name in _WHOLE)
    return whole or any(all(name in arrays for name in parts) for parts in _PARTS)


def _is_ragged(value: Any) -> bool:
    """Find out if something is a list of arrays, which are of several shapes, or it were one array."""
    return isinstance(value, list) and any(isinstance(item, ndarray) for item in value)


def read_rotations(path: Path, arrays: Mapping[str, Any]) -> tuple[Float[ndarray, "frames 72"], int]:
    """Rotations of SMPL's 24 joints as axis-angle, radians, and the number of joints that the file has.

    Args:
        path: For the errors only.
        arrays: With axis-angle numbers or rotation matrices of the joints, flattened or not, under a known name.

    Raises:
        InputError: There are none, they are of another skeleton or of another kind, or no rotations.
    """
    first, second = next((parts for parts in _PARTS if all(part in arrays for part in parts)), ("", ""))
    whole = next((name for name in _WHOLE if name in arrays), None)
    if whole is not None and first != "global_orient":
        rotations, name = _axis_angles(path, whole, arrays[whole], tuple(_JOINTS)), whole
    elif first:
        root = _axis_angles(path, first, arrays[first], (1,))
        body = _axis_angles(path, second, arrays[second], (NUM_JOINTS - 1, _BODY_JOINTS - 1))
        if len(root) != len(body):
            raise InputError(path, f"expected as many {first} as {second}, found {len(root)} and {len(body)}", _ARRAYS)
        rotations, name = np.concatenate([root, body], axis=1), f"{first} and {second}"
    else:
        raise InputError(path, f"expected SMPL poses, found {described(arrays)}", _ARRAYS)
    rotations, joints = rotations.reshape(len(rotations), -1, 3), rotations.shape[1]
    bad = np.flatnonzero(~np.isfinite(rotations).all(axis=(1, 2)))
    if len(bad):
        message = f"expected finite numbers, found NaN or infinity in the poses of frame {bad[0]}"
        raise InputError(path, message, "Estimate that frame's pose again or leave the frame out")
    _refuse_degrees(path, name, rotations)
    if joints != NUM_JOINTS:
        flat_hands = np.zeros((len(rotations), _HANDS, 3))
        rotations = np.concatenate([rotations[:, :_BODY_JOINTS], flat_hands], axis=1)
    return rotations.reshape(len(rotations), 3 * NUM_JOINTS), joints


def _axis_angles(path: Path, name: str, value: Any, counts: tuple[int, ...]) -> Float[ndarray, "frames joints 3"]:
    """Axis-angle rotations out of an array of one of the `counts` of joints."""
    values = numbers(path, name, value)
    shape = values.shape
    values = np.atleast_2d(values)
    values = values.reshape(len(values), -1)
    width = values.shape[1]
    if (len(shape) < 3 or shape[-2:] != (3, 3)) and width in [3 * count for count in counts]:
        return values.reshape(len(values), -1, 3)
    if width in [9 * count for count in counts]:
        return _from_matrices(path, name, values.reshape(len(values), -1, 3, 3))
    _refuse_several(path, name, shape, counts)
    for size, kind in _OTHER_ROTATIONS.items():
        if width in [size * count for count in counts]:
            message = f"expected axis-angle numbers or rotation matrices in {name}, found {kind} {shape}"
            raise InputError(path, message, "Convert them, with scipy.spatial.transform.Rotation for instance")
    joints = ", ".join(f"{3 * count}{f' ({_JOINTS[count]})' if count in _JOINTS else ''}" for count in counts)
    message = f"expected {name} of {joints} numbers a frame, or as many rotation matrices, found an array {shape}"
    raise InputError(path, message, "Convert the poses to SMPL's, SMPL-H's or SMPL-X's joints, the frames first")


def _refuse_several(path: Path, name: str, shape: tuple[int, ...], counts: tuple[int, ...]) -> None:
    """Refuse arrays with an axis for people, which flattened could be taken for other kinds of rotations."""
    if len(shape) < 3 or shape[1] in counts:
        return
    of_one = int(np.prod(shape[2:]))
    # Numbers of a root alone are also those of one joint, in an array of many.
    is_person = of_one in [size * count for size in (3, 9) for count in counts if count > 1]
    if is_person or (counts == (1,) and shape[1:] == (2, 3)):
        message = f"expected {name} of one person, a row for each frame, found an array {shape}, as of several people"
        raise InputError(path, message, f"Save those of one person, such as {name}[:, 0]")


def _from_matrices(
    path: Path, name: str, matrices: Float[ndarray, "frames joints 3 3"]
) -> Float[ndarray, "frames joints 3"]:
    count = matrices.shape[1]
    if count > NUM_JOINTS:
        matrices = matrices[:, :_BODY_JOINTS]
    elif count >= NUM_JOINTS - 1:  # with the root or without it
        # Zeros in place of the hands' rotations stand for flat hands.
        hands = matrices[:, -_HANDS:]
        flat = (hands == 0).all(axis=(2, 3), keepdims=True)
        matrices = np.concatenate([matrices[:, :-_HANDS], np.where(flat, np.eye(3), hands)], axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        errors = np.abs(matrices @ matrices.swapaxes(-1, -2) - np.eye(3)).max(axis=(2, 3))
        right = (errors < _NOT_ORTHOGONAL) & (np.linalg.det(matrices) > 0)
    wrong = np.argwhere(~right)
    if len(wrong):
        frame, joint = wrong[0]
        matrix = np.array2string(matrices[frame, joint].round(2), separator=", ").replace("\n", "")
        message = f"expected rotation matrices in {name}, found none in frame {frame}, joint {joint}: {matrix}"
        raise InputError(path, message, "Estimate that frame's pose again or leave the frame out")
    vectors = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec().reshape(*matrices.shape[:2], 3)
    rest = np.zeros((len(vectors), count - vectors.shape[1], 3))
    return np.concatenate([vectors, rest], axis=1)


def _refuse_degrees(path: Path, name: str, rotations: Float[ndarray, "frames joints 3"]) -> None:
    """Refuse axis-angle numbers if in most frames some joint, the root aside, turns more than twice round."""
    largest = np.linalg.norm(rotations[:, 1:_BODY_JOINTS], axis=-1).max(axis=1)
    if np.median(largest) > 4 * np.pi:
        message = f"expected rotations in radians, found angles up to {largest.max():.0f} in {name}"
        raise InputError(path, message, "If they are in degrees, convert them with numpy.radians")


def read_translations(path: Path, arrays: Mapping[str, Any], frames: int) -> Float[ndarray, "frames 3"] | None:
    """Read translations [frames, 3], metres; None where there are none under a known name.

    Args:
        path: The file, for errors only.
        arrays: Its arrays by name.
        frames: Number of the poses.

    Raises:
        InputError: They are not three finite numbers for each of the `frames`, or differ from name to name.
    """
    name = one_of(path, arrays, TRANSLATIONS)
    if name is None:
        return None
    values = numbers(path, name, arrays[name])
    transl = np.atleast_2d(values)
    transl = transl.reshape(len(transl), -1)
    if "smpl_scaling" in arrays:
        # AIST++ keeps the translation in units of its own body scale.
        scaling = numbers(path, "smpl_scaling", arrays["smpl_scaling"]).reshape(-1)
        if len(scaling) > 1 or not 0 < scaling[0] < np.inf:
            message = f"expected smpl_scaling to be one positive number, found {scaling}"
            raise InputError(path, message, "Get the file again from its original source")
        transl = transl / scaling[0]
    if transl.shape != (frames, 3):
        message = f"expected translations {name} of shape {(frames, 3)}, one for each pose, found {values.shape}"
        raise InputError(path, message, "Give one translation (x, y, z) in metres for each pose")
    bad = np.flatnonzero(~np.isfinite(transl).all(axis=1))
    if len(bad):
        message = f"expected finite numbers, found NaN or infinity in the translations of frame {bad[0]}"
        raise InputError(path, message, "Estimate that frame's pose again or leave the frame out")
    return transl


def read_betas(path: Path, arrays: Mapping[str, Any], frames: int) -> Float[ndarray, "10"] | None:
    """Read ten shape coefficients, the mean over all frames; None where there are none under a known name.

    Fewer than ten are filled up with zeros, of more the first ten are taken.

    Args:
        path: The file, for messages only.
        arrays: Its arrays by name.
        frames: Number of the poses.

    Raises:
        InputError: They are no finite numbers, neither one person's nor a row for each of the `frames`, or differ from
            name to name.
    """
    name = one_of(path, arrays, BETAS)
    if name is None:
        return None
    values = numbers(path, name, arrays[name])
    # One column is one person's coefficients, not one coefficient of many frames.
    rows = values.reshape(1, -1) if values.ndim == 0 or values.shape[-1] == 1 else values.reshape(-1, values.shape[-1])
    if values.size == 1 or len(rows) not in (1, frames):
        message = f"expected {name} of shape (10,), or {(frames, 10)} with a row for each pose, found {values.shape}"
        raise InputError(path, message, "Give the person's ten coefficients")
    betas = rows.mean(axis=0)[:10]
    if not np.isfinite(betas).all():
        raise InputError(path, "expected finite betas, found NaN or infinity", "Fit the body's shape again")
    spread = float(rows[:, :10].std(axis=0).max())
    if spread > _SPREAD_BETAS:
        notice(
            path,
            f"Betas differ from frame to frame (standard deviation up to {spread:.2g}); one person has one shape, so "
            "their mean is used. Poses are best estimated with the shape fixed.",
        )
    return np.pad(betas, (0, 10 - len(betas)))


def numbers(path: Path, name: str, value: Any) -> Float[ndarray, "..."]:
    """Return an array as floating-point numbers.

    Args:
        path: The file, for errors only.
        name: Of the array, for errors only.
        value: The array, or what stands in its place.

    Raises:
        InputError: It is empty, or text, booleans, complex numbers or objects.
    """
    values = as_array(value)
    kinds = {"U": "text", "S": "text", "b": "booleans", "c": "complex numbers", "O": "objects"}
    if values.dtype.kind not in "fiu":
        kind = kinds.get(values.dtype.kind, str(values.dtype))
        if kind == "objects":
            message = f"expected numbers in {name}, found objects in {name}{_first_shapes(values)}"
            raise InputError(path, message, f"Save {name} as one array of numbers, with rows of one length")
        raise InputError(path, f"expected numbers in {name}, found {kind} {values.shape}", f"Save {name} as numbers")
    if values.size == 0:
        raise InputError(
            path,
            f"expected numbers in {name}, found an empty array {values.shape}",
            f"Save {name} with a row for each frame",
        )
    return values.astype(np.float64)


def _first_shapes(objects: ndarray) -> str:
    """Two different shapes among the arrays of an object array, for an error; empty where there are none."""
    shapes = [item.shape for item in objects.flat if isinstance(item, ndarray)]
    other = next((shape for shape in shapes if shape != shapes[0]), None)
    return f", arrays of shape {shapes[0]} and {other}" if other is not None else ""


def as_array(value: Any) -> ndarray:
    """The array, or one of objects for what is none: a list of different things, a dictionary or nothing."""
    if isinstance(value, ndarray):
        return value
    items = value if isinstance(value, list) else [value]
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        array[index] = item
    return array


def one_of(path: Path, arrays: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """Return the one of some names that the file has, None where it has none of them.

    Args:
        path: The file, for errors only.
        arrays: Its arrays by name.
        names: Names that mean the same.

    Raises:
        InputError: Arrays under two of the names differ.
    """
    found = [name for name in names if name in arrays]
    for other in found[1:]:
        if not np.array_equal(as_array(arrays[found[0]]), as_array(arrays[other])):
            message = f"expected one of {', '.join(names)}, found {found[0]} and {other}, which differ"
            raise InputError(path, message, "Keep the one that belongs to the poses")
    return found[0] if found else None
