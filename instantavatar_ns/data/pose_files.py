"""Choice of the pose file for some frames of an InstantAvatar folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.motion.readers import read_pose_file
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice


def read_split_poses(
    data: Path, name: str, split: Literal["train", "test"] | None, numbers: Sequence[int], num_images: int
) -> PoseSequence:
    """Read the poses of some frames.

    A split's own file holds a pose for each frame of the split; any other file one for each image of the folder.

    Args:
        data: The InstantAvatar folder.
        name: See `find_pose_file`.
        split: See `find_pose_file`.
        numbers: The frames wanted: all of the split.
        num_images: Number of images in the folder.

    Raises:
        InputError: No file fits the name, or its number of poses does not fit the frames.
    """
    path, covers_split = find_pose_file(data, name, split)
    poses = read_pose_file(path)
    if covers_split and len(poses) == num_images != len(numbers):
        message = f"expected {len(numbers)} poses, those of the split's frames, found {num_images}, as many as images"
        advice = (
            f"If they are those of all images, say so with --poses {path.stem}; if all frames are to be trained on, "
            f"give --train-frames 0 {num_images} 1"
        )
        raise InputError(path, message, advice)
    return select_poses(path, poses, covers_split, numbers, num_images)


def find_pose_file(data: Path, name: str, split: Literal["train", "test"] | None) -> tuple[Path, bool]:
    """Path of the pose file to use and whether it covers the split only (True) or all images (False).

    Args:
        data: The InstantAvatar folder.
        name: "auto" for the best poses that the folder has, or the name of some, with or without `.npz`.
        split: The split; None when only files for all images will do.

    Raises:
        InputError: There is no such file.
    """
    names = ["anim_nerf", "", "poses_optimized", "poses"] if name == "auto" else [name.removesuffix(".npz")]
    for candidate in names:
        own = data / "poses" / f"{candidate}_{split}.npz" if candidate else data / "poses" / f"{split}.npz"
        if split and own.is_file():
            return own, True
        for whole in (data / f"{candidate}.npz", data / "poses" / f"{candidate}.npz"):
            if candidate and whole.is_file():
                return whole, False
    stem = "poses" if name == "auto" else names[0]
    wanted = f"{stem}.npz or poses/{'anim_nerf' if name == 'auto' else stem}_{split or 'train'}.npz"
    advice = "Estimate the SMPL parameters of every frame first, or name the poses to use with the option poses"
    raise InputError(data / f"{stem}.npz", f"expected poses ({wanted}), found none", advice)


def select_poses(
    path: Path, poses: PoseSequence, covers_split: bool, numbers: Sequence[int], num_images: int, surplus: int = 1
) -> PoseSequence:
    """Select the poses of some frames out of those of a file; see `read_split_poses`.

    Args:
        path: For errors and notices only.
        poses: The file's poses.
        covers_split: Whether they are those of the split only, else those of all images.
        numbers: The frames wanted.
        num_images: Number of images.
        surplus: Poses beyond the last image that may be left over. PeopleSnapshot has one more, also after
            InstantAvatar's preprocessing; many more rather belong to other images.

    Raises:
        InputError: There are not as many poses as frames.
    """
    rows = list(range(len(numbers)) if covers_split else numbers)
    expected = len(numbers) if covers_split else num_images
    if not covers_split and 0 < len(poses) - expected <= surplus:
        notice(path, f"It has {len(poses)} poses for {expected} images: those beyond the last image are left over.")
    elif len(poses) != expected:
        what = "frames of the split" if covers_split else "images"
        message = f"expected {expected} poses, one for each of the {what}, found {len(poses)}"
        advice = "Estimate a pose for every frame, or leave out the frames without one"
        if len(poses) > expected:
            advice = "Leave out the poses of the images that are not there"
        raise InputError(path, message, advice)
    return poses.rows(rows)
