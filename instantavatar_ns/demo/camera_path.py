"""A camera that is carried past the demo person, as somebody with a phone would."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

# Degrees about the person and above them, and of the camera's roll; the share by which it goes away and comes nearer.
_AROUND, _ABOVE, _ROLL, _AWAY = 25.0, 8.0, 3.0, 0.06
# Rounds of these in one turn of the person: no two views are alike, and the second turn sees others than the first.
# The distance's are so near to whole ones that its mean over a turn is the still camera's, to a thousandth: a person
# who is smaller in the pictures of one camera would be learned with less detail.
_AROUND_ROUNDS, _ABOVE_ROUNDS, _ROLL_ROUNDS, _AWAY_ROUNDS = 1.3, 2.1, 2.7, 1.9


def carried_camera(phase: Float[ndarray, " frames"], pivot: Float[ndarray, "3"]) -> Float[ndarray, "frames 4 4"]:
    """Transforms from the world to the camera, which is the world's origin and axes at phase 0.

    Args:
        phase: Time of each frame, in turns of the person.
        pivot: Point that stays where it is in the picture, metres.
    """
    turns = 2 * np.pi * phase
    angles = np.stack(
        [
            _ABOVE * np.sin(_ABOVE_ROUNDS * turns),
            _AROUND * np.sin(_AROUND_ROUNDS * turns),
            _ROLL * np.sin(_ROLL_ROUNDS * turns),
        ],
        axis=1,
    )
    away = 1 + _AWAY * np.sin(_AWAY_ROUNDS * turns)
    result = np.tile(np.eye(4), (len(phase), 1, 1))
    result[:, :3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    result[:, :3, 3] = pivot * away[:, None] - result[:, :3, :3] @ pivot
    return result
