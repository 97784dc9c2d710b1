"""A pose estimator's result as a motion: the person who is seen longest, in the world where the tool tells it.

Whoever imports this module lets `load_motion` read such results. What reads them is imported with the first motion, so
that commands start fast.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.motion.readers import pose_sequence, read_motions_with
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

if TYPE_CHECKING:
    from instantavatar_ns.importing.result import ToolResult, Track
    from instantavatar_ns.importing.tracks import Person

_NAMED = 5
"""People and gaps that are named in a notice."""


@read_motions_with
def read_tool_motion(path: Path, content: Any) -> PoseSequence | None:
    """Read the poses of the person who is seen in most frames, and say whose they are and in which world.

    Short gaps are filled as `instant-avatar import` fills them; longer ones are left out, which is said.

    Args:
        path: The tool's file, or the folder that it wrote.
        content: What the file holds, as of `read_content`; None of a folder.

    Returns:
        Poses with betas of zero, radians and metres; None for a file that is no tool's result.

    Raises:
        InputError: See `read_result`; or it has no SMPL poses (SAM 3D Body), or fewer cameras than frames.
    """
    from instantavatar_ns.importing.reading import is_result, read_result, result_of_content
    from instantavatar_ns.importing.tracks import choose_track, without_gaps

    if path.is_dir():
        result = read_result(path, "world")
    elif is_result(content) and not _is_plain(content):
        result = result_of_content(path, content, "world")
    else:
        return None
    if result.skeleton == "MHR":
        message = f"expected SMPL poses, found a result of {result.tool}, which has none before a body is fitted to it"
        advice = "Run instant-avatar import on it and its video, and give the poses.npz of the folder that this writes"
        raise InputError(path, message, advice)
    name, _ = choose_track(path, result, None)
    person = without_gaps(name, result.tracks[name])
    track = person.track
    if result.camera_to_world is not None:
        track = _in_world(path, track, result)
    notice(path, " ".join([_people(result, name), *_gaps(person), _space(result)]))
    return pose_sequence(track.thetas, track.transl)


def _is_plain(content: Any) -> bool:
    """Find out if arrays are named as NLF's are, but lie as in any file of SMPL poses, without a shape for each."""
    if "pose" not in content:
        return False
    betas = content.get("betas")
    has_rows = isinstance(betas, list) or np.ndim(betas) > 0
    return not has_rows or len(betas) != len(content["pose"])


def _in_world(path: Path, track: Track, result: ToolResult) -> Track:
    """The person in the world of the tool's moving camera; the pelvis is taken for that of the mean person."""
    from scipy.spatial.transform import Rotation

    from instantavatar_ns.importing.placement import PELVIS

    assert result.camera_to_world is not None
    cameras, frames = result.camera_to_world, track.frames - result.first_frame
    if frames[0] < 0 or frames[-1] >= len(cameras):
        found = f"{len(cameras)} cameras and frames {frames[0]} to {frames[-1]}"
        message = f"expected a camera for each frame, counted from 0, found {found}"
        raise InputError(path, message, "Give the tool's result of one video, as it wrote it")
    turns, pelvis = Rotation.from_matrix(cameras[frames, :3, :3]), np.array(PELVIS[result.skeleton])
    thetas = track.thetas.copy()
    thetas[:, :3] = (turns * Rotation.from_rotvec(thetas[:, :3])).as_rotvec()
    transl = turns.apply(track.transl + pelvis) + cameras[frames, :3, 3] - pelvis
    return replace(track, thetas=thetas, transl=transl)


def _people(result: ToolResult, name: str) -> str:
    lengths = {other: len(track) for other, track in result.tracks.items()}
    said = f"Result of {result.tool}: track {name}, found in {lengths.pop(name)} frames"
    if not lengths:
        return f"{said}."
    others = sorted(lengths, key=lambda other: -lengths[other])
    some = ", ".join(f"{other} ({lengths[other]} frames)" for other in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return f"{said}, the longest; others are {some}{more} (instant-avatar import --track)."


def _gaps(person: Person) -> list[str]:
    """Sentences about frames in which the person was not found."""
    said, frames = [], person.track.frames
    if person.interpolated.any():
        count = int(person.interpolated.sum())
        said.append(f"{count} of its frames, in which the person was not found, are interpolated.")
    before = np.flatnonzero(np.diff(frames) > 1)
    if len(before):
        gaps = ", ".join(f"{frames[row] + 1} to {frames[row + 1] - 1}" for row in before[:_NAMED])
        more = f" and {len(before) - _NAMED} more gaps" if len(before) > _NAMED else ""
        said.append(f"The person was not found in frames {gaps}{more}, which are left out, so the motion jumps there.")
    return said


def _space(result: ToolResult) -> str:
    if result.space == "world":
        return "Poses are those in the tool's world."
    if result.camera_to_world is not None:
        return "Poses are put into the world by the tool's camera."
    return "Poses are the camera's: if it moved, that is part of the motion."
