"""Body model files in SMPL's format: read and checked, as archives of NumPy arrays or as pickles that run no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.rig import Rig
from instantavatar_ns.body.smpl import NUM_BETAS, SMPL
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.npz import read_npz
from instantavatar_ns.utils.unpickle import load_plain_pickle

FREE_BODY = Path(__file__).with_name("free_body.npz")

# Metres over which a body's vertices extend; a body in centimetres extends over 150 to 200.
_SMALLEST, _LARGEST = 0.1, 20.0
_REQUIRED = {
    "v_template": "(V, 3)",
    "f": "(F, 3)",
    "weights": "(V, joints)",
    "J_regressor": "(joints, V)",
    "kintree_table": "(2, joints)",
    "shapedirs": "(V, 3, 10 or more)",
}
_ADVICE = (
    "Give an SMPL model (SMPL_{NEUTRAL,MALE,FEMALE}.pkl or .npz), a body of the same format with SMPL's 24 joints, "
    "or 'free' for the body that comes with this package"
)


def load_body_model(path: Path | str) -> BodyModel:
    """Load a body model.

    Args:
        path: An SMPL-format `.npz` or `.pkl` file, or "free" for the body shipped with this package.

    Raises:
        InputError: The file is missing or unreadable, asks for code to be run, or is not a body with SMPL's 24 joints.
    """
    path = FREE_BODY if str(path) == "free" else Path(path)
    data = read_body_file(path)
    return BodyModel(data, rig_of(path, data["kintree_table"]))


def read_body_file(path: Path) -> dict[str, np.ndarray]:
    """Read and check the arrays of an SMPL-format file; see `load_body_model`.

    Returns:
        `v_template`, `f`, `weights`, `J_regressor`, `kintree_table`, `shapedirs` (cut to 10) and `posedirs` (zeros
        where the file has none). Joint order and parents are SMPL's.

    Raises:
        InputError: See `load_body_model`.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none"
        raise InputError(path, f"expected a body model file, found {found}", _ADVICE)
    _check_download(path)
    if path.suffix.lower() == ".pkl":
        loaded = load_plain_pickle(path)
    else:
        loaded = read_npz(path, "an SMPL-format body", _ADVICE)
    missing = [key for key in _REQUIRED if key not in loaded]
    if missing:
        raise InputError(path, f"expected an SMPL-format body, found no {', '.join(missing)}", _ADVICE)
    return _checked(path, loaded)


def _check_download(path: Path) -> None:
    """Refuse what programs save in place of a file that they did not get."""
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if start.startswith(b"version https://git-lfs"):
        message = "expected a body model, found a pointer of Git LFS to it"
        raise InputError(path, message, "Run git lfs pull, or download the file itself")
    if start.startswith(b"<"):
        message = "expected a body model, found a web page"
        raise InputError(path, message, "Download the file again, logged in to its site")
    if not start:
        raise InputError(path, "expected a body model, found an empty file", "Download the file again")


def _checked(path: Path, loaded: dict) -> dict[str, np.ndarray]:
    """The arrays as smplx expects them, or an InputError."""
    keys = [*_REQUIRED, *(["posedirs"] if "posedirs" in loaded else [])]
    data = {key: _finite_numbers(path, key, loaded[key]) for key in keys}
    num_joints = rig_of(path, data["kintree_table"]).num_joints
    num_vertices, num_faces = (len(data[key]) if data[key].ndim else 0 for key in ("v_template", "f"))
    data.setdefault("posedirs", np.zeros((num_vertices, 3, 9 * (num_joints - 1))))
    num_shapes = max(data["shapedirs"].shape[-1] if data["shapedirs"].ndim else 0, NUM_BETAS)
    shapes = {
        "v_template": (max(num_vertices, 1), 3),
        "f": (max(num_faces, 1), 3),
        "weights": (num_vertices, num_joints),
        "J_regressor": (num_joints, num_vertices),
        "kintree_table": (2, num_joints),
        "shapedirs": (num_vertices, 3, num_shapes),
        "posedirs": (num_vertices, 3, 9 * (num_joints - 1)),
    }
    for key, shape in shapes.items():
        if data[key].shape != shape:
            raise InputError(path, f"expected {key} of shape {shape}, found {data[key].shape}", _ADVICE)
    for key, of in (("weights", "vertex"), ("J_regressor", "joint")):
        sums = data[key].sum(axis=1)
        wrong = np.flatnonzero(np.abs(sums - 1) > 0.05)
        if len(wrong):
            message = f"expected {key} that sum to 1 for each {of}, found {sums[wrong[0]]:.4g} for {of} {wrong[0]}"
            raise InputError(path, message, _ADVICE)
    extent = np.ptp(data["v_template"].astype(np.float64), axis=0).max()
    if not _SMALLEST <= extent <= _LARGEST:
        message = f"expected a body in metres, found vertices that extend over {extent:.4g}"
        raise InputError(path, message, "Scale v_template, shapedirs and posedirs to metres")
    if data["f"].min() < 0 or data["f"].max() >= num_vertices:
        raise InputError(path, f"expected faces that index {num_vertices} vertices, found others", _ADVICE)
    integers = {key: data[key].astype(np.int64) for key in ("f", "kintree_table")}
    data = {**{key: value.astype(np.float32) for key, value in data.items()}, **integers}
    data["shapedirs"] = data["shapedirs"][..., :NUM_BETAS]
    data["kintree_table"][0, 0] = -1  # SMPL writes 2**32 - 1
    return data


def rig_of(path: Path, kintree_table: np.ndarray) -> Rig:
    """Rig of a file's joints. A file says nothing of a canonical pose, so only rigs that are known here can be used.

    Args:
        path: The file, for the message.
        kintree_table: Its table of parents and joints.

    Raises:
        InputError: The joints are not SMPL's.
    """
    if kintree_table.ndim != 2 or len(kintree_table) != 2:
        message = f"expected kintree_table of shape (2, {SMPL.num_joints}), found {kintree_table.shape}"
        raise InputError(path, message, _ADVICE)
    num_joints = kintree_table.shape[1]
    if num_joints != SMPL.num_joints:
        advice = "SMPL-H (52 joints) and SMPL-X (55 joints) bodies are not supported. " + _ADVICE
        raise InputError(path, f"expected a body with SMPL's {SMPL.num_joints} joints, found {num_joints}", advice)
    if tuple(kintree_table[0, 1:]) != SMPL.parents[1:]:
        found = ", ".join(map(str, (-1, *kintree_table[0, 1:])))
        message = f"expected SMPL's kinematic tree, found the parents {found} in kintree_table"
        raise InputError(path, message, _ADVICE)
    return SMPL


def _finite_numbers(path: Path, key: str, value: Any) -> np.ndarray:
    value = np.asarray(value.todense() if hasattr(value, "todense") else value)
    if value.dtype.kind not in "biuf":
        found = "text" if value.dtype.kind in "US" else f"the type {value.dtype}"
        raise InputError(path, f"expected {key} of real numbers, found {found}", _ADVICE)
    if not np.isfinite(value).all():
        raise InputError(path, f"expected finite numbers, found NaN or infinity in {key}", _ADVICE)
    return value
