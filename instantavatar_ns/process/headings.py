"""First guess of the trunk's heading in each frame, from the network's landmarks.

The network guesses depth for each frame by itself: now and then it takes what is near for what is far. It also errs by
10 to 30 degrees, and alike in frames that show the person alike, so that its errors look like motion. People turn
steadily, so the path is taken that turns most steadily and is as far from the readings as readings are from the truth.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from instantavatar_ns.process.body_landmarks import LEFT_HIP, LEFT_SHOULDER, RIGHT_HIP, RIGHT_SHOULDER
from instantavatar_ns.process.steadiest import steadiest

# Radians, the deviation of readings from the truth, in frames that follow each other and in all; and how fast people
# turn, radians a second.
_STEP, _READING, _TURNING = 0.2, 0.25, 2.5
_OTHER_DEPTH = 3.0  # cost of the mirror image, where that of a deviation is a half


def trunk_headings(
    world: Float[ndarray, "frames 33 3"], times: Float[ndarray, " frames"], found: Bool[ndarray, " frames"]
) -> Float[ndarray, " frames"]:
    """Angles of the trunk about the upright, radians, continuous; 0 faces the camera, growing as SMPL's yaw does.

    Args:
        world: The network's landmarks, metres, in the camera's axes (x right, y down, z away).
        times: Of the frames, seconds, ascending.
        found: Frames that have landmarks; between them angles are interpolated.
    """
    across = (world[:, LEFT_SHOULDER] - world[:, RIGHT_SHOULDER]) + (world[:, LEFT_HIP] - world[:, RIGHT_HIP])
    # The left side of a person who faces the camera is at the picture's right: x > 0, z = 0.
    readings = _without_mirror_images(np.arctan2(across[found, 2], across[found, 0]), times[found])
    return np.interp(times, times[found], steadiest(readings, times[found], _READING))


def _without_mirror_images(
    reading: Float[ndarray, " frames"], times: Float[ndarray, " frames"]
) -> Float[ndarray, " frames"]:
    """Turn readings to their mirror image in depth where that makes the sequence more likely (Viterbi); unwrapped."""
    both = np.stack([reading, -reading], axis=1)
    own = np.array([0.0, _OTHER_DEPTH])
    cost, origins = own.copy(), []
    for last, now, passed in zip(both[:-1], both[1:], np.diff(times), strict=True):
        turn = np.angle(np.exp(1j * (now - last[:, None])))
        total = cost[:, None] + 0.5 * turn**2 / (2 * _STEP**2 + (_TURNING * passed) ** 2) + own
        origins.append(total.argmin(axis=0))
        cost = total.min(axis=0)
    state = int(cost.argmin())
    states = [state]
    for origin in reversed(origins):
        state = int(origin[state])
        states.append(state)
    return np.unwrap(both[np.arange(len(both)), states[::-1]])
