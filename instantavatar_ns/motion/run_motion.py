"""Motions brought to where a run's person stands."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.motion.editing import MotionOptions, prepare_motion
from instantavatar_ns.motion.motion import DEFAULT_FPS, Motion, load_motion


def load_run_motion(path: Path, options: MotionOptions, stand: PoseSequence, up: Float[Tensor, "3"]) -> Motion:
    """Load a motion and prepare it as the options say, in the dataset's world.

    Args:
        path: As of `load_motion`.
        options: What to make of the motion.
        stand: The person's pose in the first training frame.
        up: The vertical direction in the dataset's world, of unit length: `Subject.up`.

    Raises:
        InputError: See `load_motion` and `prepare_motion`.
    """
    start = Motion(stand.global_orient, stand.body_pose, stand.transl, DEFAULT_FPS, up)
    return prepare_motion(load_motion(path, options.source_fps, options.up), options, start)
