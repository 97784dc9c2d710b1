"""The last files of a clip's folder: which frames train, and what a user's own poses need beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from instantavatar_ns.motion.readers import read_pose_file
from instantavatar_ns.process.frames import ChosenFrames, write_text
from instantavatar_ns.process.landmarks import pick_rows, write_npz
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import written_whole

_HELD_OUT_EVERY = 10
FREE = "free"


def write_split(folder: Path, frames: list[int]) -> tuple[int, int]:
    """Write `subject.json`: every tenth frame is held out, so that all sides of the person train.

    Args:
        folder: The clip's folder.
        frames: Numbers of the images that show the person; others are left out of both sets.

    Returns:
        How many frames train, and how many are held out.
    """
    held_out = frames[_HELD_OUT_EVERY // 2 :: _HELD_OUT_EVERY]
    train = sorted(set(frames) - set(held_out))
    split = {"train": {"frames": train}, "test": {"frames": held_out}}
    write_text(folder / "subject.json", json.dumps(split) + "\n")
    return len(train), len(held_out)


def take_poses(folder: Path, poses: Path, focal: float, body: str) -> None:
    """Write `poses.npz`, `cameras.npz` and `body/` from a user's own poses.

    Args:
        folder: With `process/clip.json`.
        poses: SMPL parameters in the camera, one for each chosen frame or for each frame of the source.
        focal: Pixels of the images.
        body: The body that they were fitted with, a file, or "free".

    Raises:
        InputError: The file cannot be used, or its number of poses does not fit.
    """
    clip = ChosenFrames.read(folder)
    file = read_pose_file(poses)
    rows = pick_rows(poses, "poses", len(file), [list(range(len(clip.frames))), clip.frames])
    chosen = file.rows(rows)
    thetas = chosen.axis_angles.flatten(1).numpy()
    copy_body(folder, body)
    write_cameras(folder, focal, clip.height, clip.width)
    write_npz(folder / "poses.npz", betas=chosen.betas.numpy(), thetas=thetas, transl=chosen.transl.numpy())


def write_cameras(folder: Path, focal: float, height: int, width: int) -> None:
    """Write `cameras.npz` of a camera at the origin that looks through the images' middle.

    Args:
        folder: Folder of the clip.
        focal: Focal length, pixels.
        height: Of the images, pixels.
        width: Of the images, pixels.
    """
    intrinsic = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    write_npz(
        folder / "cameras.npz",
        intrinsic=intrinsic,
        extrinsic=np.eye(4),
        height=np.array(height),
        width=np.array(width),
    )


def copy_body(folder: Path, body: str) -> None:
    """Put the user's body model into `body/`; nothing for the free body.

    Args:
        folder: Folder of the clip.
        body: Path of an SMPL model, or "free".

    Raises:
        InputError: There is no such file.
    """
    if body == FREE:
        return
    path = Path(body)
    if not path.is_file():
        message = "expected a body model, found no such file"
        raise InputError(path, message, "Give an SMPL model (.pkl or .npz), or 'free' for the body of this package")
    with written_whole(folder / "body" / path.name) as partial:
        shutil.copyfile(path, partial)
