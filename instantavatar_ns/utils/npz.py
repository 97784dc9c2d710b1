"""NumPy archives, read without running what a pickle in them asks for, and with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.unpickle import load_plain_npy


def read_npz(path: Path, content: str, advice: str) -> dict[str, np.ndarray]:
    """Read the arrays of a `.npz` file; entries that hold Python objects other than numbers are left out.

    Args:
        path: The file.
        content: What it should hold, for the error message ("the cameras").
        advice: What to do if it does not.

    Raises:
        InputError: The file is missing or damaged.
    """
    return read_npz_entries(path, content, advice)[0]


def read_npz_entries(path: Path, content: str, advice: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read the arrays of a `.npz` file, and the names of the entries that `read_npz` leaves out.

    Args:
        path: As of `read_npz`.
        content: As of `read_npz`.
        advice: As of `read_npz`.

    Raises:
        InputError: The file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(path, f"expected {content}, found no such file", advice)
    arrays: dict[str, np.ndarray] = {}
    objects: list[str] = []
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not hasattr(archive, "files"):
                raise ValueError("it holds a single array")
            for key in archive.files:
                try:
                    arrays[key] = archive[key]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    # A pickle: of numbers that NumPy took for objects, or of something else, as AMASS's gender is.
                    numbers = numbers_of_objects(entry_content(archive, key), path)
                    if numbers is None:
                        objects.append(key)
                    else:
                        arrays[key] = numbers
    except Exception as error:
        # A damaged archive makes NumPy raise nearly anything.
        reason = "it is no NumPy file" if "allow_pickle" in str(error) else str(error)
        raise InputError(path, f"expected {content} in a NumPy .npz archive ({reason})", advice) from error
    return arrays, objects


def entry_content(archive: Any, name: str) -> bytes:
    """Return the bytes of a `.npy` in an archive.

    Args:
        archive: What NumPy has opened.
        name: The name that NumPy gives the array.
    """
    file = f"{name}.npy"
    return archive.zip.read(file if file in archive.zip.namelist() else name)


def numbers_of_objects(data: bytes, path: Path) -> np.ndarray | None:
    """Read a `.npy` of objects that are numbers, or arrays of numbers of one shape; None if they are anything else.

    Args:
        data: Content of the file.
        path: The file, for errors only.
    """
    try:
        values = load_plain_npy(data, path)
    except InputError:  # it asks for something else than arrays; nothing of it was run
        return None
    return values if isinstance(values, np.ndarray) and values.dtype.kind in "biufc" else None
