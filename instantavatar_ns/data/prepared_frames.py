"""Images and masks that a data set has in another form, made once and kept in a cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock
from jaxtyping import UInt8

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import written_whole
from instantavatar_ns.utils.progress import shown_progress

Picture = tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width"]]
"""BGR image and mask, 0 to 255."""
_LAYOUT_VERSION = 1


def cache_folder(chosen: Path | None, dataset: str) -> Path:
    """Return the folder that the user chose, else the data set's in `$XDG_CACHE_HOME` or ~/.cache.

    Args:
        chosen: The user's choice, which may begin with `~`; None for the usual folder.
        dataset: Name of the data set, as its folder is called.
    """
    if chosen is not None:
        return chosen.expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "instantavatar_ns" / dataset


def prepared_frames(
    source: Sequence[Path], facts: Any, names: Sequence[str], read: Callable[[], Iterator[Picture]], cache: Path
) -> tuple[list[Path], list[Path]]:
    """Paths of images and masks, which are made where the cache lacks them.

    Args:
        source: Files that they are made from: other ones, or changed ones, make others.
        facts: What else they depend on, as JSON takes it.
        names: Name of each frame, without suffix.
        read: Returns the frames in the order of `names`.
        cache: Folder of the cache, made where it does not exist.

    Raises:
        InputError: The cache cannot be written; and what `read` raises.
    """
    stamps = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in source]
    content = json.dumps([_LAYOUT_VERSION, stamps, facts, list(names)])
    folder = cache / f"{source[0].stem}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / "lock"):
            if not folder.is_dir():
                with written_whole(folder) as partial:
                    _write(partial, names, read())
    except OSError as error:
        message = f"expected a folder that can be written, with room for {len(names)} frames ({error})"
        raise InputError(cache, message, "Choose another one with the option cache_dir") from error
    return [folder / f"image_{name}.png" for name in names], [folder / f"mask_{name}.png" for name in names]


def _write(folder: Path, names: Sequence[str], frames: Iterator[Picture]) -> None:
    folder.mkdir()
    with shown_progress("Preparing frames") as done:
        for place, (name, pictures) in enumerate(zip(names, frames, strict=True)):
            for kind, pixels in zip(("image", "mask"), pictures, strict=True):
                (folder / f"{kind}_{name}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
            done((place + 1) / len(names))
