"""The motion of a run's configuration, which nerfstudio's time plays."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.motion.editing import MotionOptions, prepare_motion
from instantavatar_ns.motion.motion import DEFAULT_FPS, Motion, load_motion


def load_run_motion(
    path: Path, options: MotionOptions, stand: PoseSequence, up: Float[Tensor, "3"]
) -> tuple[PoseSequence, float]:
    """Load a motion and prepare it as the options say.

    Args:
        path: As of `load_motion`.
        options: What to make of the motion.
        stand: The person in the first training frame: shape and place.
        up: The vertical direction in the dataset's world, of unit length: `world_to_dataset[:3, 2]`.

    Returns:
        The motion with the person's shape, and its frames per second.

    Raises:
        InputError: See `load_motion` and `prepare_motion`.
    """
    start = Motion(stand.global_orient, stand.body_pose, stand.transl, DEFAULT_FPS, up)
    motion = prepare_motion(load_motion(path, options.source_fps, options.up), options, start)
    return PoseSequence(stand.betas, motion.global_orient, motion.body_pose, motion.transl), motion.fps
