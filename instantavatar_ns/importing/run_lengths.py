"""COCO's run-length encoding of masks, as PHALP and TRAM store it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from instantavatar_ns.utils.errors import InputError


def is_run_lengths(value: Any) -> bool:
    """Find out if a value is a mask in COCO's encoding."""
    return isinstance(value, Mapping) and "size" in value and "counts" in value


def decode_run_lengths(path: Path, value: Mapping[str, Any]) -> UInt8[ndarray, "height width"]:
    """Decode a mask, 1 where the person is.

    pycocotools trusts the counts, and writes beside its memory if they are too large.

    Args:
        path: File that it comes from, for errors.
        value: `size` (height, width) and `counts`: lengths of the runs of 0 and 1 in turns, down the columns, as
            numbers or in COCO's text.

    Raises:
        InputError: The runs do not fill the mask.
    """
    height, width = (int(side) for side in np.asarray(value["size"]).reshape(-1)[:2])
    counts = np.asarray(value["counts"])
    if counts.dtype.kind in "US":
        text = counts.reshape(-1)[0]
        lengths = _lengths(text if isinstance(text, bytes) else str(text).encode("latin1"))
    else:
        lengths = [int(count) for count in counts.reshape(-1)]
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        message = f"expected runs that fill a mask of {height} x {width} pixels, found {sum(lengths)} pixels"
        raise InputError(path, message, "Run the tool again, or give masks with --masks")
    values = np.arange(len(lengths), dtype=np.uint8) % 2
    return np.repeat(values, lengths).reshape(width, height).T


def _lengths(text: bytes) -> list[int]:
    """Run lengths out of COCO's text: five bits a character, the sixth tells that more follow; later runs are given
    as the difference to the run before the last one."""
    lengths: list[int] = []
    number, shift = 0, 0
    for character in text:
        bits = character - 48
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        if len(lengths) > 2:
            number += lengths[-2]
        lengths.append(number)
        number, shift = 0, 0
    return lengths
