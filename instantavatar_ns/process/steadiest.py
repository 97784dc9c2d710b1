"""The steadiest path through readings that are known to be off by so much."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import root_scalar

_LEAST_WEIGHT, _MOST_WEIGHT = -30.0, 30.0  # logarithms: readings as they are, and a straight line


def steadiest(
    readings: Float[ndarray, " frames"], times: Float[ndarray, " frames"], deviation: float
) -> Float[ndarray, " frames"]:
    """Smooth by second differences, as strongly as the readings' errors allow (Morozov's discrepancy principle).

    Args:
        readings: With errors that may last over many frames.
        times: Of the frames, ascending.
        deviation: Of the readings from the truth.

    Returns:
        The path that bends least among those that are so far from the readings; a straight line if that is as near.
    """
    if len(times) < 4:
        return readings
    bending = _second_differences(times)
    values, vectors = np.linalg.eigh(bending.T @ bending)
    values[:2] = 0  # straight lines do not bend; rounding would count at great weights
    parts, values = vectors.T @ readings, values.clip(0)

    def kept(log_weight: float) -> Float[ndarray, " frames"]:
        """Share of each part that a weight of the bending leaves."""
        return 1 / (1 + np.exp(log_weight) * values)

    def excess(log_weight: float) -> float:
        """Deviation of the smoothed path from the readings, less the one that is allowed."""
        return float(np.sqrt(np.mean((parts * (1 - kept(log_weight))) ** 2))) - deviation

    if excess(_MOST_WEIGHT) <= 0:
        weight = _MOST_WEIGHT
    else:
        weight = float(root_scalar(excess, bracket=(_LEAST_WEIGHT, _MOST_WEIGHT)).root)
    return vectors @ (parts * kept(weight))


def _second_differences(times: Float[ndarray, " frames"]) -> Float[ndarray, "inner frames"]:
    """Matrix of second derivatives, in units of the mean distance of the frames."""
    steps = np.diff(times) / np.diff(times).mean()
    matrix = np.zeros((len(times) - 2, len(times)))
    for row, (before, after) in enumerate(pairwise(steps)):
        matrix[row, row : row + 3] = 1 / before, -1 / before - 1 / after, 1 / after
    return matrix / np.sqrt((steps[:-1] + steps[1:]) / 2)[:, None]
