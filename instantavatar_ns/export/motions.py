"""Motions of the exported person, placed as the model places its own."""

from __future__ import annotations

from pathlib import Path

from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.editing import MotionOptions
from instantavatar_ns.motion.motion import Motion
from instantavatar_ns.motion.run_motion import load_run_motion


def place(path: Path, model: InstantAvatarModel, options: MotionOptions) -> Motion:
    """Load a motion and give it the person's shape and place, as the model does to its own.

    Args:
        path: As of `load_motion`.
        model: The person.
        options: Edits, and the place where the motion starts.

    Raises:
        InputError: See `load_run_motion`.
    """
    return load_run_motion(path, options, model.subject.stand, model.subject.up)


def closed(motion: Motion) -> Motion:
    """A motion that loops, followed by its first frame: players do not interpolate from the last key to the first."""
    return motion.concatenate(motion.rows(slice(1)))
