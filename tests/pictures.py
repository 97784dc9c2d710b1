"""Tests of a picture of a person."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def is_whole(opacity: Float[ndarray, "height width"]) -> bool:
    """Return whether a person is in the picture, and nowhere cut by its border.

    Args:
        opacity: Of each pixel, 0 to 1.
    """
    border = np.concatenate([opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]])
    return bool((opacity > 0.5).mean() > 0.01 and border.max() < 0.5)
