"""Frames without the person, left out where the user wants it."""

from __future__ import annotations

from dataclasses import replace

from instantavatar_ns.data.masks import empty_masks
from instantavatar_ns.data.scene import Frames
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice


def without_empty_frames(frames: Frames) -> Frames:
    """Leave out frames whose masks show no person; cameras and poses of the others stay theirs.

    Raises:
        InputError: A mask is unreadable, or no frame shows the person.
    """
    empty = empty_masks(frames.mask_filenames, frames.mask_encoding)
    kept = [index for index, is_empty in enumerate(empty) if not is_empty]
    if not kept:
        message = f"expected the person in some of the {len(empty)} frames, found all their masks black"
        raise InputError(frames.mask_filenames[0].parent, message, "Segment the frames again")
    if len(kept) == len(empty):
        return frames
    names = [path.name for path, is_empty in zip(frames.mask_filenames, empty, strict=True) if is_empty]
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    text = f"{len(names)} of {len(empty)} frames are left out, because their masks show no person: {listed}"
    notice(frames.mask_filenames[0].parent, text)
    return replace(
        frames,
        numbers=[frames.numbers[index] for index in kept],
        image_filenames=[frames.image_filenames[index] for index in kept],
        mask_filenames=[frames.mask_filenames[index] for index in kept],
        intrinsics=frames.intrinsics[kept],
        world_to_camera=frames.world_to_camera[kept],
        poses=frames.poses.rows(kept),
    )
