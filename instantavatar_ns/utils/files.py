"""Files and folders that appear under their names only when they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_PARTIAL = ".partial-"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a hidden path beside `path` to write a file or a folder to, which gets its name at the end.

    An error in the block deletes what was written and leaves `path` as it was. A killed process leaves the hidden one,
    which the next attempt replaces. The hidden name keeps the ending, by which libraries choose formats.

    Args:
        path: File to write or replace; or folder to make, which must be empty or not exist yet. Its parent is made.

    Yields:
        The hidden path, where nothing exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(_PARTIAL + path.name)
    _remove(partial)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        _remove(partial)


def write_files(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files that belong together: none gets its name before all are complete.

    Args:
        folder: Folder of the files; it is made where it does not exist.
        contents: Content of each file by its name, in the order in which the files appear.
    """
    with ExitStack() as stack:
        # A stack ends what was begun last first.
        for name in reversed(contents):
            stack.enter_context(written_whole(folder / name)).write_bytes(contents[name])


def move_into_place(partial: Path, path: Path) -> None:
    """Give a complete file or folder its name.

    Args:
        partial: The file or folder, on the same file system.
        path: Its new path: a file is replaced, a folder must be empty or not exist yet. Its parent is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, path)


def delete_partial(folder: Path) -> None:
    """Delete what killed processes left unfinished in a folder; only for who knows that nobody is writing there."""
    for leftover in folder.glob(f"{_PARTIAL}*"):
        _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
