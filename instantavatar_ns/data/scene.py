"""From the frames of one person, as any format yields them, to nerfstudio's cameras and metadata.

nerfstudio's viewer and renderers expect z up and metres around the origin; datasets have any up axis. The world is
turned and shifted rigidly, never scaled, and the matrix back (`world_to_dataset`) is handed to the model, whose poses
stay in the dataset's world.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from scipy.spatial.transform import Rotation
from torch import Tensor

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence, posed_joints
from instantavatar_ns.data.masks import WHITE_ON_BLACK, MaskEncoding
from instantavatar_ns.data.pixel_centers import nerfstudio_principal_points, resize_intrinsics
from instantavatar_ns.data.subject import Subject
from instantavatar_ns.utils.errors import InputError

# Metres from a joint to the farthest point of the person: top of the head, fingertips, loose clothes.
_MARGIN = 0.4
_OPENCV_TO_OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))


@dataclass(frozen=True)
class Frames:
    """Frames of one person, parallel lists and arrays.

    Attributes:
        numbers: Place of each frame in its recording.
        image_filenames: Images, all of `image_size`.
        mask_filenames: The person's mask in each image.
        image_size: Height and width of the files, pixels.
        intrinsics: Camera matrices in pixels of the files, x to the right, y down, the center of the top-left pixel at
            (0, 0), as OpenCV counts.
        world_to_camera: From the dataset's world to OpenCV cameras (x right, y down, z ahead).
        poses: The person's pose in each frame.
        mask_encoding: Meaning of the values in the masks' files.
        mask_places: Where the masks were given, if their files were made from others; for errors only.
    """

    numbers: list[int]
    image_filenames: list[Path]
    mask_filenames: list[Path]
    image_size: tuple[int, int]
    intrinsics: Float[Tensor, "frames 3 3"]
    world_to_camera: Float[Tensor, "frames 4 4"]
    poses: PoseSequence
    mask_encoding: MaskEncoding = WHITE_ON_BLACK
    mask_places: list[str] | None = None


def assemble_outputs(parts: dict[str, Frames], chosen: str, body_model: str, downscale: int) -> DataparserOutputs:
    """Outputs of one split, with the `Subject` in its metadata.

    Args:
        parts: Frames by name; "train" comes first.
        chosen: The part whose images and cameras are wanted.
        body_model: Path of a body model, or "free".
        downscale: Divisor of the images' height and width.
    """
    train, frames = parts["train"], parts[chosen]
    poses = reduce(PoseSequence.concatenate, (part.poses for part in parts.values()))
    first_row = sum(len(part.numbers) for part in list(parts.values())[: list(parts).index(chosen)])
    pose_ids = torch.arange(first_row, first_row + len(frames.numbers))
    body = load_body_model(body_model)
    world_to_dataset = upright_world(body, train.poses, train.world_to_camera[0])
    recording_rows, recording_numbers = _recording(parts, chosen)
    joints = posed_joints(body, poses).reshape(-1, 3)
    joints = (joints - world_to_dataset[:3, 3].float()) @ world_to_dataset[:3, :3].float()
    return DataparserOutputs(
        image_filenames=frames.image_filenames,
        cameras=_cameras(frames, world_to_dataset, pose_ids, _times(frames.numbers, train.numbers), downscale),
        scene_box=SceneBox(aabb=torch.stack([joints.amin(0) - _MARGIN, joints.amax(0) + _MARGIN])),
        dataparser_transform=torch.linalg.inv(world_to_dataset)[:3].float(),
        alpha_color=torch.ones(3),  # whole images, as they are evaluated and written beside renderings, are on white
        metadata=Subject(
            body_model=body_model,
            poses=poses,
            num_train=len(train.numbers),
            train_numbers=torch.tensor(train.numbers),
            world_to_dataset=world_to_dataset.float(),
            frame_numbers=torch.tensor(frames.numbers),
            recording_rows=torch.tensor(recording_rows),
            recording_numbers=torch.tensor(recording_numbers),
            mask_filenames=frames.mask_filenames,
            mask_encoding=frames.mask_encoding,
            mask_places=frames.mask_places,
            image_size=frames.image_size,
        ).metadata(),
    )


def _recording(parts: dict[str, Frames], chosen: str) -> tuple[list[int], list[int]]:
    """Rows of all poses of the recording that a part belongs to, and their places in it; "novel" is one of its own."""
    rows: list[int] = []
    numbers: list[int] = []
    first = 0
    for name, part in parts.items():
        if (name == "novel") == (chosen == "novel"):
            rows += range(first, first + len(part.numbers))
            numbers += part.numbers
        first += len(part.numbers)
    return rows, numbers


def reduced_size(size: tuple[int, int], downscale: int) -> tuple[int, int]:
    """Divide height and width, rounding down.

    Args:
        size: Height and width, pixels.
        downscale: Divisor of both.

    Raises:
        InputError: The divisor is not positive or leaves nothing of the image.
    """
    if not 1 <= downscale <= min(size):
        message = f"expected a divisor between 1 and the image's {min(size)} pixels, found {downscale}"
        raise InputError("downscale", message, "Give 1 to keep the images as they are")
    return size[0] // downscale, size[1] // downscale


def body_up(poses: PoseSequence) -> Float[Tensor, "3"]:
    """Mean direction from pelvis to head in the dataset's world, of unit length."""
    up = torch.from_numpy(Rotation.from_rotvec(poses.global_orient.double().numpy()).apply([0.0, 1.0, 0.0])).mean(dim=0)
    return up / up.norm()


def upright_world(body: BodyModel, poses: PoseSequence, world_to_camera: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """Rigid transform from nerfstudio's world (z up, origin at the mean pelvis) to the dataset's, in double precision.

    Args:
        body: The person's body.
        poses: Poses whose mean up direction becomes z, and whose mean pelvis becomes the origin.
        world_to_camera: An OpenCV camera; its viewing direction along the floor becomes y.
    """
    up = body_up(poses)
    ahead, down = world_to_camera[2, :3].double(), world_to_camera[1, :3].double()
    # A camera that looks straight down has no direction along the floor: then the top of its image lies ahead.
    level = ahead - (ahead @ up) * up
    if level.norm() < 0.1:
        level = -down + (down @ up) * up
    y = level / level.norm()
    transform = torch.eye(4, dtype=torch.float64)
    transform[:3, :3] = torch.stack([torch.linalg.cross(y, up), y, up], dim=1)
    transform[:3, 3] = (poses.transl + body.rest(poses.betas)[1][0]).double().mean(dim=0)
    return transform


def _times(numbers: list[int], train_numbers: list[int]) -> Float[Tensor, "frames 1"]:
    """Place of each frame in the training sequence, 0 at its first frame and 1 at its last."""
    first, last = train_numbers[0], train_numbers[-1]
    places = (np.array(numbers, np.float64) - first) / max(last - first, 1)
    return torch.from_numpy(places.clip(0.0, 1.0)).float()[:, None]


def _cameras(
    frames: Frames,
    world_to_dataset: Float[Tensor, "4 4"],
    pose_ids: Tensor,
    times: Float[Tensor, "frames 1"],
    downscale: int,
) -> Cameras:
    height, width = reduced_size(frames.image_size, downscale)
    camera_to_dataset = torch.linalg.inv(frames.world_to_camera.double())
    camera_to_world = torch.linalg.inv(world_to_dataset) @ camera_to_dataset @ _OPENCV_TO_OPENGL
    scale_y, scale_x = height / frames.image_size[0], width / frames.image_size[1]
    intrinsics = resize_intrinsics(frames.intrinsics.double(), scale_x, scale_y)
    centers = nerfstudio_principal_points(intrinsics).float()
    return Cameras(
        camera_to_worlds=camera_to_world[:, :3].float(),
        fx=intrinsics[:, 0, 0, None].float(),
        fy=intrinsics[:, 1, 1, None].float(),
        cx=centers[:, :1],
        cy=centers[:, 1:],
        width=width,
        height=height,
        camera_type=CameraType.PERSPECTIVE,
        times=times,
        metadata={"pose_id": pose_ids[:, None]},
    )
