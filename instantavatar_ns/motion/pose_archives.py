"""The named arrays of pose files: NumPy's, pickles, joblib's and PyTorch's, also those in nested dictionaries."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from instantavatar_ns.motion.smpl_arrays import (
    ADVICE,
    BETAS,
    TRANSLATIONS,
    as_array,
    described,
    has_poses,
    missing_part,
)
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice
from instantavatar_ns.utils.npz import read_npz
from instantavatar_ns.utils.unpickle import load_plain_npy, load_plain_tree

_CHOOSE = (
    "Save the poses of one person, a row for each frame, as .npz, such as numpy.savez('poses.npz', poses=..., "
    "trans=..., betas=...)"
)
_PICKLES = b"\x80(xB\x1f\xfd\x5d}c"
"""First bytes of pickles (a protocol's mark, or an instruction), and of files that joblib compressed."""
_OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46"
"""First bytes of PyTorch files before version 1.6."""
_SPACES = {"camera": "cam", "world": ("global", "world")}
"""Last letters of the names under which GVHMR and PromptHMR keep the same poses in the camera and in the world."""


def read_arrays(path: Path, space: Literal["camera", "world"]) -> dict[str, Any]:
    """Read the arrays of the one set of SMPL poses in a file; nothing that the file asks for is run.

    Args:
        path: `.npz`, `.npy`, `.pkl` (joblib's too, compressed or not) or `.pt`. Poses may lie in dictionaries.
        space: The poses to take from a file that has them in the camera and in the world.

    Raises:
        InputError: The file is missing or damaged, or has no SMPL poses or several sets of them.
    """
    return arrays_of_content(path, read_content(path, space), space)


def arrays_of_content(path: Path, content: Any, space: Literal["camera", "world"]) -> dict[str, Any]:
    """Choose the arrays of the one set of SMPL poses in what `read_content` read.

    Args:
        path: The file, for messages only.
        content: What it holds.
        space: As of `read_arrays`.

    Raises:
        InputError: It has no SMPL poses or several sets of them.
    """
    if isinstance(content, np.ndarray):
        content = {"poses": content}
    found = list(_pose_sets(content, ""))
    if not found:
        missing = missing_part(content)
        note = f", but no {missing}" if missing else ""
        raise InputError(path, f"expected SMPL poses, found {described(content)}{note}", ADVICE[space])
    wanted = [(name, arrays) for name, arrays in found if name.endswith(_SPACES[space])] or found
    # GVHMR adds what its network gave before the last step, one level deeper.
    depth = min(name.count("/") for name, _ in wanted)
    found = [(name, arrays) for name, arrays in wanted if name.count("/") == depth]
    if space == "world" and len(found) > 1:
        found = _longest(path, found)
    if len(found) > 1:
        names = ", ".join(name for name, _ in found[:4]) + (", ..." if len(found) > 4 else "")
        raise InputError(path, f"expected one set of SMPL poses, found {len(found)}: {names}", _CHOOSE)
    name, arrays = found[0]
    if "center_confs" in arrays and len(as_array(arrays["center_confs"]).ravel()) > 1:
        message = "expected the poses of one person, found those of several people in one image, as ROMP writes them"
        raise InputError(path, message, f"Pick the person in every image. {_CHOOSE}")
    if name:
        notice(path, f"Its poses are those of {name}.")
    return arrays


def _longest(path: Path, found: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The person who is seen in most frames, as WHAM and PromptHMR track several; all where that is nobody."""
    lengths = [max(len(value) for value in arrays.values() if np.ndim(value)) for _, arrays in found]
    if sorted(lengths)[-2] == max(lengths):
        return found
    best = lengths.index(max(lengths))
    notice(
        path, f"It has the poses of {len(found)} people; those of the one with most frames ({max(lengths)}) are used."
    )
    return [found[best]]


def read_content(path: Path, space: Literal["camera", "world"] = "camera") -> Any:
    """Read all arrays of a file, in the dictionaries and lists in which they lie; its first bytes tell what it is.

    Args:
        path: The file.
        space: As of `read_arrays`, for the advice of errors only.

    Raises:
        InputError: The file is missing or damaged, or asks for anything but arrays; nothing of it is run.
    """
    if not path.is_file():
        return _read_npz(path, space)
    with path.open("rb") as file:
        start = file.read(8)
    suffix = path.suffix.lower()
    if start.startswith(b"PK") and zipfile.is_zipfile(path):
        names = {name.rsplit("/", 1)[-1] for name in zipfile.ZipFile(path).namelist()}
        return _read_torch(path) if "data.pkl" in names else _read_npz(path, space)
    if start.startswith(_OLD_TORCH) or suffix in (".pt", ".pth"):
        return _read_torch(path)
    if start.startswith(b"\x93NUMPY") or suffix == ".npy":
        return load_plain_npy(path.read_bytes(), path)
    is_pickle = suffix in (".pkl", ".pickle") or (start and start[0] in _PICKLES)
    return load_plain_tree(path) if is_pickle else _read_npz(path, space)


def _read_npz(path: Path, space: Literal["camera", "world"]) -> dict[str, Any]:
    """All arrays, also those of Python objects, such as ROMP's dictionaries and AMASS's gender."""
    arrays: dict[str, Any] = {**read_npz(path, "SMPL poses", ADVICE[space])}
    plain_poses = has_poses(arrays)
    with zipfile.ZipFile(path) as archive:
        names = {name: name.removesuffix(".npy") for name in archive.namelist()}
        for entry, name in names.items():
            if name in arrays:
                continue
            try:
                arrays[name] = load_plain_npy(archive.read(entry), path)
            except InputError:
                # Metadata of any kind does no harm.
                if not plain_poses or name in (*TRANSLATIONS, *BETAS):
                    raise
    return arrays


def _read_torch(path: Path) -> Any:
    try:
        return _as_arrays(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        # PyTorch's own words advise to run what the file asks for.
        asked = re.search(r"GLOBAL (\S+)", str(error))
        found = f"but it asks for {asked[1]}" if asked else "but it holds something else"
        message = f"expected a PyTorch file of tensors only, {found}; nothing of it was run"
        raise InputError(path, message, _CHOOSE) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        message = f"expected a PyTorch file of tensors only ({str(error).splitlines()[0] if str(error) else error!r})"
        raise InputError(path, f"{message}; nothing of it was run", _CHOOSE) from error


def _as_arrays(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to_dense().float().numpy() if value.is_floating_point() else value.numpy()
    if isinstance(value, dict):
        return {str(key): _as_arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_arrays(item) for item in value]
    return np.asarray(value) if isinstance(value, (bool, int, float, str)) else None


def _pose_sets(content: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each dictionary that holds SMPL poses, and where it lies."""
    if isinstance(content, dict) and has_poses(content):
        yield name, content
        return
    if isinstance(content, dict):
        items = list(content.items())
    else:
        items = list(enumerate(content)) if isinstance(content, list) else []
    for key, item in items:
        yield from _pose_sets(item, f"{name}/{key}" if name else str(key))
