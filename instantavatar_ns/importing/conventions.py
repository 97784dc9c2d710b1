"""Focal lengths that tools assume of an image whose camera is not known."""

from __future__ import annotations

import math
from collections.abc import Callable

Focal = Callable[[tuple[int, int]], float]
"""Focal length in pixels by the image's height and width."""


def romp_focal(size: tuple[int, int]) -> float:
    """443.4 pixels on the image that is padded to a square and scaled to 512 (60 degrees)."""
    return 443.4 / 512 * max(size)


def phalp_focal(size: tuple[int, int]) -> float:
    """5000 pixels on the image that is padded to a square and scaled to 256."""
    return 5000 / 256 * max(size)


def diagonal_focal(size: tuple[int, int]) -> float:
    """The image's diagonal."""
    return math.hypot(*size)


def nlf_focal(size: tuple[int, int]) -> float:
    """55 degrees over the larger side."""
    return max(size) / (2 * math.tan(math.radians(55) / 2))


FOCALS: dict[str, Focal] = {
    "ROMP": romp_focal,
    "4D-Humans": phalp_focal,
    "WHAM or GVHMR (the image's diagonal)": diagonal_focal,
    "NLF": nlf_focal,
}
"""By the tools that assume them."""
