"""NumPy archives, read without pickles and with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from instantavatar_ns.utils.errors import InputError


def read_npz(path: Path, content: str, advice: str) -> dict[str, np.ndarray]:
    """Read the arrays of a `.npz` file; entries that hold Python objects are left out.

    Args:
        path: The file.
        content: What it should hold, for the error message ("the cameras").
        advice: What to do if it does not.

    Raises:
        InputError: The file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(path, f"expected {content}, found no such file", advice)
    arrays = {}
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not hasattr(archive, "files"):
                raise ValueError("it holds a single array")
            for key in archive.files:
                try:
                    arrays[key] = archive[key]
                except ValueError as error:
                    # An array of objects (AMASS's gender) is a pickle, and is not needed by anything here.
                    if "allow_pickle" not in str(error):
                        raise
    except Exception as error:
        # A damaged archive makes NumPy raise nearly anything.
        reason = "it is no NumPy file" if "allow_pickle" in str(error) else str(error)
        raise InputError(path, f"expected {content} in a NumPy .npz archive ({reason})", advice) from error
    return arrays
