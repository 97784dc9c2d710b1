"""One person out of a result: which one, in which frames of the video, without gaps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.spatial.transform import Rotation, Slerp

from instantavatar_ns.importing.result import ToolResult, Track
from instantavatar_ns.importing.video import Video
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

_LONGEST_GAP = 10
"""Frames that are interpolated at most; what a person does in a longer time is not known."""
_MODEST = 5
"""People who are named in a message."""


@dataclass(frozen=True)
class Person:
    """The chosen person's poses in frames of the video.

    Attributes:
        name: Of the track.
        track: Poses, whose frames count from 0.
        interpolated: Frames whose poses lie between those of their neighbours.
    """

    name: str
    track: Track
    interpolated: Bool[ndarray, "frames"]

    def rows(self, rows: Int[ndarray, "rows"]) -> Person:
        """Some of the frames."""
        return Person(self.name, select(self.track, rows), self.interpolated[rows])


def choose_track(path: Path, result: ToolResult, name: str | None) -> tuple[str, str]:
    """Choose a person: the one of that name, or who is seen in most frames.

    Args:
        path: The result, for errors.
        result: Everybody whom the tool found.
        name: Name of the track that the user asks for; None for the longest.

    Returns:
        The name, and a sentence that says what was chosen among whom.

    Raises:
        InputError: There is nobody of that name.
    """
    by_length = sorted(result.tracks, key=lambda track: (-len(result.tracks[track]), track))
    lengths = [f"{track} ({len(result.tracks[track])} frames)" for track in by_length]
    others = ", ".join(lengths[:_MODEST]) + (f" and {len(lengths) - _MODEST} more" if len(lengths) > _MODEST else "")
    if name is not None and name not in result.tracks:
        raise InputError(path, f"expected a track {name}, found {others}", "Choose one of these with --track")
    if len(by_length) == 1:
        return by_length[0], f"One person: track {lengths[0]}."
    if name is not None:
        return name, f"Took track {name} of {others}."
    return by_length[0], f"Took the longest track, {by_length[0]}, of {others}; another with --track."


def in_video(path: Path, result: ToolResult, track: Track, video: Video) -> Track:
    """The track with frames that count from 0 in the video, by the names of the images where they are the same.

    Args:
        path: The result, for errors and notices.
        result: Tells how the tool counts frames.
        track: The person, in frames as the tool counts them.
        video: The video that the tool was run on.

    Raises:
        InputError: The tool saw another number of frames, or frames that the video has not.
    """
    advice = "Give the video that the tool was run on, or the folder of the frames that it made of it"
    if result.num_frames is not None and result.num_frames != len(video):
        message = f"expected a result of the {len(video)} frames of {video.path}, found one of {result.num_frames}"
        raise InputError(path, message, advice)
    if video.names is not None and track.names is not None and set(track.names) <= set(video.names):
        places = {name: place for place, name in enumerate(video.names)}
        frames = np.array([places[name] for name in track.names])
        pairs = zip(track.frames.tolist(), frames.tolist(), strict=True)
        masks = {place: track.masks[frame] for frame, place in pairs if frame in track.masks}
        return select(replace(track, frames=frames, masks=masks), np.argsort(frames))
    first = result.first_frame
    if track.names is not None and first == 0 and track.frames[0] > 0 and track.frames[-1] == len(video):
        notice(path, "Its images are numbered from 1.")
        first = 1
    frames = track.frames - first
    if len(frames) and (frames[0] < 0 or frames[-1] >= len(video)):
        found = f"frames {track.frames[0]} to {track.frames[-1]}"
        start = f", counted from {first}" if first else ""
        message = f"expected frames within the {len(video)} of {video.path}, found {found}{start}"
        raise InputError(path, message, advice)
    masks = {frame - first: mask for frame, mask in track.masks.items()}
    return replace(track, frames=frames, masks=masks)


def without_gaps(name: str, track: Track) -> Person:
    """Fill gaps of at most `_LONGEST_GAP` frames: rotations along the shortest arc, the rest linearly.

    Args:
        name: Of the track.
        track: The person, in ascending frames of the video.

    Returns:
        The person, with marks for the filled frames; longer gaps stay.
    """
    gaps = np.diff(track.frames) - 1
    if not len(gaps) or not ((gaps > 0) & (gaps <= _LONGEST_GAP)).any():
        return Person(name, track, np.zeros(len(track), bool))
    wanted = np.arange(track.frames[0], track.frames[-1] + 1)
    before = np.searchsorted(track.frames, wanted, side="right") - 1
    is_known = track.frames[before] == wanted
    kept = is_known | (np.append(gaps, 0)[before] <= _LONGEST_GAP)
    wanted, is_known = wanted[kept], is_known[kept]
    joints = track.thetas.reshape(len(track), -1, 3).swapaxes(0, 1)
    turned = [Slerp(track.frames, Rotation.from_rotvec(joint))(wanted).as_rotvec() for joint in joints]
    filled = replace(
        track,
        frames=wanted,
        thetas=np.concatenate(turned, axis=1),
        transl=_between(track.frames, track.transl, wanted),
        betas=_between(track.frames, track.betas, wanted),
        names=None,
        intrinsics=None if track.intrinsics is None else _between(track.frames, track.intrinsics, wanted),
        keypoints=None if track.keypoints is None else _between(track.frames, track.keypoints, wanted),
        vertices=None if track.vertices is None else _between(track.frames, track.vertices, wanted),
    )
    # What is known stays as it was, to the last digit.
    for key in ("thetas", "transl", "betas"):
        getattr(filled, key)[is_known] = getattr(track, key)
    return Person(name, filled, ~is_known)


def _between(
    frames: Int[ndarray, "known"], values: Float[ndarray, "known *shape"], wanted: Int[ndarray, "wanted"]
) -> Float[ndarray, "wanted *shape"]:
    before = np.searchsorted(frames, wanted, side="right") - 1
    after = np.minimum(before + 1, len(frames) - 1)
    share = (wanted - frames[before]) / np.maximum(frames[after] - frames[before], 1)
    share = share.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    return values[before] + share * (values[after] - values[before])


def select(track: Track, rows: Int[ndarray, "rows"]) -> Track:
    """Choose some frames of a track, which keeps all masks.

    Args:
        track: The person.
        rows: Rows of the chosen frames, in the wanted order.
    """
    return Track(
        track.frames[rows],
        track.thetas[rows],
        track.transl[rows],
        track.betas[rows],
        None if track.names is None else [str(track.names[row]) for row in rows],
        None if track.intrinsics is None else track.intrinsics[rows],
        track.masks,
        None if track.keypoints is None else track.keypoints[rows],
        None if track.vertices is None else track.vertices[rows],
    )
