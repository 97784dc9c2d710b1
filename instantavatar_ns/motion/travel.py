"""Travel of the root over the floor, apart from its sway and steps."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

# Hertz. Of movements over the floor this fast one half counts as travel; of a walk's sway and a dance's steps (0.5 Hz
# and more) less than a sixteenth does, of a way across the room nearly all.
_CUTOFF = 0.25


def travel(path: Float[ndarray, "frames 3"], fps: float, up: Float[ndarray, "3"]) -> Float[ndarray, "frames 3"]:
    """Horizontal way that a camera has to go to stay with a person, from zero at the first frame.

    It is the line from the first frame to the last, plus what a low-pass filter (Whittaker's smoother) leaves of the
    path's distance from that line, taken as periodic. So the first and the last frame are equally far from the camera,
    and a motion that repeats does so without a jump.

    Args:
        path: Translation of the root, metres.
        fps: Frames per second.
        up: The vertical direction, of unit length.
    """
    steps = len(path) - 1
    if steps < 1:
        return np.zeros_like(path)
    level = path - path[0] - ((path - path[0]) @ up)[:, None] * up
    line = np.linspace(0.0, 1.0, len(path))[:, None] * level[-1]
    frequencies = np.fft.rfftfreq(steps)  # cycles a frame
    roughness = (np.sin(np.pi * frequencies) / np.sin(np.pi * min(_CUTOFF / fps, 0.5))) ** 4
    spectrum = np.fft.rfft((level - line)[:-1], axis=0) / (1 + roughness)[:, None]
    smooth = np.fft.irfft(spectrum, n=steps, axis=0)
    way = line + np.concatenate([smooth, smooth[:1]])
    return way - way[0]
