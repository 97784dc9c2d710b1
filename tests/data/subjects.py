"""Small recordings of one person, written to disk for tests."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import h5py
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from tests.body.bodies import random_body

HEIGHT, WIDTH = 48, 36
INTRINSIC = np.array([[90.0, 0.0, 17.0], [0.0, 80.0, 25.0], [0.0, 0.0, 1.0]])


def standing_poses(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A person who turns before an OpenCV camera at the origin: global_orient, body_pose, transl, betas."""
    random = np.random.default_rng(seed)
    turns = np.linspace(0, 2 * np.pi, count, endpoint=False)
    # Half a turn about x makes a y-up body stand in y-down axes; its turn about the vertical comes first.
    orient = Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec(turns[:, None] * [0, 1, 0])
    return {
        "global_orient": orient.as_rotvec(),
        "body_pose": random.normal(size=(count, 69)) * 0.1,
        "transl": [0.0, 0.1, 3.0] + random.normal(size=(count, 3)) * 0.01,
        "betas": np.zeros((1, 10)),
    }


def write_instantavatar_folder(
    data: Path, count: int = 10, splits: dict | None = None, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> dict[str, np.ndarray]:
    """Write images (red is 10 times the frame number), masks, cameras, `poses.npz` and a body; returns the poses."""
    for name in ("images", "masks", "body"):
        (data / name).mkdir(parents=True)
    for number in range(count):
        image = np.full((*size, 3), 100, np.uint8)
        image[..., 0] = number * 10
        Image.fromarray(image).save(data / "images" / f"image_{number:04d}.png")
        mask = np.zeros(size, np.uint8)
        mask[size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4] = 255
        Image.fromarray(mask).save(data / "masks" / f"mask_{number:04d}.png")
    np.savez(data / "cameras.npz", intrinsic=INTRINSIC, extrinsic=np.eye(4), height=size[0], width=size[1])
    np.savez(data / "body" / "SMPL_NEUTRAL.npz", **random_body())
    poses = standing_poses(count)
    np.savez(
        data / "poses.npz",
        thetas=np.concatenate([poses["global_orient"], poses["body_pose"]], 1),
        transl=poses["transl"],
        betas=poses["betas"],
    )
    if splits:
        (data / "subject.json").write_text(json.dumps(splits))
    return poses


def write_people_snapshot(
    data: Path, count: int = 12, distortion: tuple[float, ...] = (0.0,) * 5
) -> dict[str, np.ndarray]:
    """Write a subject as PeopleSnapshot distributes it; the video brightens by 10 a frame. Returns the poses."""
    data.mkdir(parents=True)
    size = (64, 64)
    video = cv2.VideoWriter(str(data / f"{data.name}.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30.0, size[::-1])
    for number in range(count):
        video.write(np.full((*size, 3), number * 10, np.uint8))
    video.release()
    with h5py.File(data / "masks.hdf5", "w") as file:
        masks = np.zeros((count, *size), np.uint8)
        masks[:, 16:48, 20:44] = 1
        file["masks"] = masks
    poses = standing_poses(count)
    with h5py.File(data / "reconstructed_poses.hdf5", "w") as file:
        file["betas"] = poses["betas"][0]
        file["pose"] = np.concatenate([poses["global_orient"], poses["body_pose"]], 1)
        file["trans"] = poses["transl"]
    camera = {
        "camera_f": np.array([128.0, 128.0]),
        "camera_c": np.array([32.0, 30.0]),
        "camera_k": np.array(distortion),
        "camera_rt": np.zeros(3),
        "camera_t": np.zeros(3),
        "width": size[1],
        "height": size[0],
    }
    (data / "camera.pkl").write_bytes(pickle.dumps(camera, 2))
    return poses
