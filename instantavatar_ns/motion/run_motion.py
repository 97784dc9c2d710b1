"""Motions of a run's person, brought to where the person stands."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.motion.editing import MotionOptions, prepare_motion
from instantavatar_ns.motion.motion import Motion, load_motion


def load_run_motion(path: Path, options: MotionOptions, stand: PoseSequence, up: Float[Tensor, "3"]) -> Motion:
    """Load a motion for a person, edited and placed as the options say.

    Args:
        path: As of `load_motion`.
        options: What to make of the motion.
        stand: The person in the first training frame: shape and place. Further frames do not matter.
        up: The vertical direction in the dataset's world, of unit length: `Subject.up`.

    Raises:
        InputError: See `load_motion` and `prepare_motion`.
    """
    motion = load_motion(path, options.source_fps, options.up)
    return prepare_motion(motion, options, stand.rows(slice(1)), up)
