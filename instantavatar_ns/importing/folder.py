"""A person of a result as a recording in InstantAvatar's layout, checked against the masks before it gets its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from instantavatar_ns.body.files import FREE_BODY
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.check.recording import Recording as CheckedRecording
from instantavatar_ns.check.recording import read_recording
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.folder import list_images, list_masks
from instantavatar_ns.data.scene import Frames, assemble_outputs
from instantavatar_ns.importing.masks import Masks
from instantavatar_ns.importing.video import Video
from instantavatar_ns.utils.progress import shown_progress

SOURCE = "instant-avatar import"
_CHECKED_FRAMES = 120


@dataclass(frozen=True)
class Recording:
    """Arrays of a recording; one row a frame.

    Attributes:
        numbers: Frames of the video.
        poses: In the recording's world.
        estimated: The same before a shape was fitted to the masks.
        intrinsics: Camera matrices, pixel centers as OpenCV counts them.
        world_to_camera: OpenCV's axes.
        size: Height and width of the images.
    """

    numbers: Sequence[int]
    poses: PoseSequence
    estimated: PoseSequence
    intrinsics: Float[ndarray, "frames 3 3"]
    world_to_camera: Float[ndarray, "frames 4 4"]
    size: tuple[int, int]


def write_images(folder: Path, video: Video, masks: Masks, numbers: Sequence[int]) -> None:
    """Write `images/` and `masks/`, files named by the numbers of their frames.

    Args:
        folder: Folder of the recording, in which neither is there yet.
        video: The video that the frames are of.
        masks: A mask for each of the frames.
        numbers: Of the frames, ascending.

    Raises:
        InputError: A frame or a mask cannot be read.
    """
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    with shown_progress(f"Frames of {video.path.name}") as done:
        video.write_frames(numbers, folder / "images", done)
    with shown_progress("Masks") as done:
        for place, number in enumerate(numbers):
            pixels = np.rint(masks[number]() * 255).astype(np.uint8)
            (folder / "masks" / f"{number:05d}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
            done((place + 1) / len(numbers))


def write_arrays(folder: Path, recording: Recording, body_model: str, facts: dict) -> None:
    """Write `cameras.npz`, `poses.npz`, `subject.json`, and the body, so that everything after it agrees.

    Args:
        folder: Folder of the recording.
        recording: Cameras, and poses in metres.
        body_model: Path of the body model to copy, or "free".
        facts: Further entries of `subject.json`.
    """
    cameras = {"intrinsic": recording.intrinsics, "extrinsic": recording.world_to_camera}
    one_for_all = {key: value[0] if (value == value[0]).all() else value for key, value in cameras.items()}
    height, width = recording.size
    np.savez(folder / "cameras.npz", **one_for_all, height=height, width=width)
    poses = recording.poses
    thetas = poses.axis_angles.flatten(1).numpy()
    np.savez(folder / "poses.npz", betas=poses.betas[None].numpy(), thetas=thetas, transl=poses.transl.numpy())
    (folder / "subject.json").write_text(json.dumps({"source": SOURCE, **facts}, indent=1) + "\n", encoding="utf-8")
    body = FREE_BODY if body_model == "free" else Path(body_model)
    (folder / "body").mkdir()
    shutil.copyfile(body, folder / "body" / body.name)


def read_masks(folder: Path, rows: Sequence[int]) -> UInt8[Tensor, "frames height width"]:
    """Masks of some frames of a folder that `write_images` wrote, 0 to 255.

    Args:
        folder: Folder of the recording.
        rows: Places of the masks in the order of their names.
    """
    files = sorted((folder / "masks").glob("*.png"))
    pixels = [cv2.imread(str(files[row]), cv2.IMREAD_GRAYSCALE) for row in rows]
    return torch.from_numpy(np.stack(pixels))  # pyright: ignore[reportCallIssue, reportArgumentType]


def read_checked(
    folder: Path, recording: Recording, body_model: str
) -> tuple[CheckedRecording, CheckedRecording, list[str]]:
    """Read frames over the whole recording for the check of body against mask.

    Args:
        folder: Folder of the recording, with images and masks.
        recording: Its arrays.
        body_model: Path of the body model, or "free".

    Returns:
        What the check compares, the same with the estimated poses, and the names of the frames.

    Raises:
        InputError: An image or a mask cannot be used.
    """
    images = list_images(folder)
    masks = list_masks(folder, images)
    rows = spread_rows(len(images), _CHECKED_FRAMES)
    frames = Frames(
        numbers=[recording.numbers[row] for row in rows],
        image_filenames=[images[row] for row in rows],
        mask_filenames=[masks[row] for row in rows],
        image_size=recording.size,
        intrinsics=torch.from_numpy(recording.intrinsics)[rows],
        world_to_camera=torch.from_numpy(recording.world_to_camera)[rows],
        poses=recording.poses.rows(rows),
    )
    outputs = assemble_outputs({"train": frames}, "train", body_model, downscale=1)
    checked = read_recording(AvatarDataset(outputs))
    return checked, checked.with_poses(recording.estimated.rows(rows)), [images[row].name for row in rows]


def is_ours(folder: Path) -> bool:
    """Find out if a folder was written by this command, and may be replaced where the user wants it."""
    try:
        return json.loads((folder / "subject.json").read_text(encoding="utf-8")).get("source") == SOURCE
    except (OSError, ValueError, AttributeError):
        return False


def spread_rows(count: int, most: int) -> list[int]:
    """Choose rows that are spread evenly, ascending.

    Args:
        count: Number of rows that there are.
        most: Most rows to choose.
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
