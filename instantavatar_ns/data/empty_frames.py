"""Frames without the person, left out where the user wants it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from instantavatar_ns.data.masks import empty_masks
from instantavatar_ns.data.scene import Frames
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

_SEGMENT = "Segment these frames again, or, if nobody is in them,"
_OTHER_TEST_FRAMES = (
    f"{_SEGMENT} hold out frames that show the person: --test-frames START END STEP behind the data format's name, the "
    "end not included"
)
_OTHER_FRAMES = {
    "train": (
        f"{_SEGMENT} train on other frames: --train-frames START END STEP behind the data format's name, "
        "the end not included"
    ),
    "novel": f"{_SEGMENT} evaluate on another recording",
}


def without_empty_frames(name: str, frames: Frames) -> Frames:
    """Leave out frames whose masks show no person; cameras and poses of the others stay theirs.

    Args:
        name: "train", "novel" for another recording, or another name for held-out frames.
        frames: The frames of that name.

    Raises:
        InputError: A mask is unreadable, or no frame shows the person.
    """
    empty = empty_masks(frames.mask_filenames, frames.mask_encoding)
    kept = [index for index, is_empty in enumerate(empty) if not is_empty]
    places = frames.mask_places
    # The folder, or the file of all masks, whose frames are told apart by their numbers.
    source = frames.mask_filenames[0].parent if places is None else Path(places[0].rpartition(", frame")[0])
    if not kept:
        kind = {"train": "training frames", "novel": "frames of the other recording"}.get(name, "held-out frames")
        numbers = f"number {frames.numbers[0]} to {frames.numbers[-1]}"
        message = f"expected the person in some of the {len(empty)} {kind} ({numbers}), found all their masks black"
        raise InputError(source, message, _OTHER_FRAMES.get(name, _OTHER_TEST_FRAMES))
    if len(kept) == len(empty):
        return frames
    names = [path.name for path in frames.mask_filenames] if places is None else [f"frame {n}" for n in frames.numbers]
    names = [name for name, is_empty in zip(names, empty, strict=True) if is_empty]
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    text = f"{len(names)} of {len(empty)} frames are left out, because their masks show no person: {listed}"
    notice(source, text)
    return replace(
        frames,
        numbers=[frames.numbers[index] for index in kept],
        image_filenames=[frames.image_filenames[index] for index in kept],
        mask_filenames=[frames.mask_filenames[index] for index in kept],
        intrinsics=frames.intrinsics[kept],
        world_to_camera=frames.world_to_camera[kept],
        poses=frames.poses.rows(kept),
        mask_places=places and [places[index] for index in kept],
    )
