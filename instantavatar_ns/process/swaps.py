"""Left and right taken for each other by the network, found by how far a limb would have to jump."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from instantavatar_ns.process.network import MIRRORED

_ARMS = np.array([11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22])
_LEGS = np.array([23, 24, 25, 26, 27, 28, 29, 30, 31, 32])
_LIMBS = {"arms": _ARMS, "legs": _LEGS}
_COST = 0.005  # metres squared, for each frame that is taken for swapped


def swapped_frames(
    world: Float32[np.ndarray, "frames 33 3"], found: Bool[np.ndarray, "frames"]
) -> dict[str, Int[np.ndarray, "swapped"]]:
    """Frames in which the left and the right arm, or leg, are taken for each other.

    Where the limbs change places for a frame and back, all their landmarks jump by the width of the body. Of all ways
    to swap frames, the one is taken in which landmarks jump least (Viterbi), each swapped frame costing a little.

    Args:
        world: Landmarks of all frames, metres about the hips.
        found: Frames whose landmarks are known.

    Returns:
        Frames to be swapped, for "arms" and "legs".
    """
    known = np.flatnonzero(found)
    return {name: known[_path(world[known], limb)] for name, limb in _LIMBS.items()}


def swap(values: np.ndarray, frames: Int[np.ndarray, "swapped"], limb: str) -> None:
    """Let the left and right landmarks of a limb change places in some frames, in place.

    Args:
        values: Of all frames and landmarks, (frames, 33, ...).
        frames: Frames to change.
        limb: "arms" or "legs".
    """
    landmarks = _LIMBS[limb]
    values[np.ix_(frames, landmarks)] = values[np.ix_(frames, MIRRORED[landmarks])]


def _path(world: Float[np.ndarray, "frames 33 3"], limb: Int[np.ndarray, "landmarks"]) -> Bool[np.ndarray, "frames"]:
    if len(world) == 0:
        return np.zeros(0, bool)
    # Axes: kept or swapped, frame, landmark, coordinate.
    both = np.stack([world[:, limb], world[:, MIRRORED[limb]]]).astype(np.float64)
    cost = np.array([0.0, _COST])
    origins = []
    for before, after in zip(both[:, :-1].swapaxes(0, 1), both[:, 1:].swapaxes(0, 1), strict=True):
        jumps = ((after[None] - before[:, None]) ** 2).sum(axis=-1).mean(axis=-1)  # from, to
        total = cost[:, None] + jumps + np.array([0.0, _COST])
        origins.append(total.argmin(axis=0))
        cost = total.min(axis=0)
    state = int(cost.argmin())
    states = [state]
    for origin in reversed(origins):
        state = int(origin[state])
        states.append(state)
    return np.array(states[::-1], dtype=bool)
