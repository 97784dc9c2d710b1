"""Exact poses with the drift of given ones: the mean error that all frames share, without what differs among them.

No training image shows drift: an avatar trained with it looks the same in these frames, and lies off in exact poses.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

_JOINTS = 24


def folder_with_drift(subject: Path, folder: Path) -> Path:
    """Write a folder of links to a subject's files, and drift.npz: exact poses, those of training frames with drift.

    Args:
        subject: Folder in InstantAvatar's layout, with truth.npz and poses/anim_nerf_train.npz.
        folder: To write; what is there already is replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in subject.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    train = slice(*json.loads((subject / "subject.json").read_text(encoding="utf8"))["train"])
    truth = dict(np.load(subject / "truth.npz"))
    near = np.load(subject / "poses" / "anim_nerf_train.npz")
    given = np.concatenate([near["global_orient"], near["body_pose"]], axis=1)
    poses, places = with_drift(truth["poses"][train], truth["transl"][train], given, near["transl"])
    truth["poses"][train], truth["transl"][train] = poses, places
    np.savez(folder / "drift.npz", **truth)  # pyright: ignore[reportArgumentType]
    return folder


def with_drift(
    exact: Float[ndarray, "frames 72"],
    exact_places: Float[ndarray, "frames 3"],
    given: Float[ndarray, "frames 72"],
    given_places: Float[ndarray, "frames 3"],
) -> tuple[Float[ndarray, "frames 72"], Float[ndarray, "frames 3"]]:
    """Give exact poses the drift of given ones.

    That of a joint is the mean of its rotations' errors; that of the translations the part of their errors that is
    constant in the world or turns with the person.

    Args:
        exact: Axis-angles of the joints, radians.
        exact_places: Translations, metres.
        given: Axis-angles that are off.
        given_places: Translations that are off.
    """
    frames = len(exact)
    right, wrong = (
        Rotation.from_rotvec(each.reshape(-1, 3)).as_matrix().reshape(-1, _JOINTS, 3, 3) for each in (exact, given)
    )
    errors = right.swapaxes(2, 3) @ wrong
    drift = np.stack([Rotation.from_matrix(errors[:, joint]).mean().as_matrix() for joint in range(_JOINTS)])
    poses = Rotation.from_matrix((right @ drift).reshape(-1, 3, 3)).as_rotvec().reshape(frames, -1)
    parts = np.concatenate([np.tile(np.eye(3), (frames, 1)), right[:, 0].reshape(-1, 3)], axis=1)
    shift = parts @ np.linalg.lstsq(parts, (given_places - exact_places).reshape(-1), rcond=None)[0]
    return poses.astype(exact.dtype), (exact_places + shift.reshape(frames, 3)).astype(exact_places.dtype)
