"""The demo subject's two turns as a folder of their own, in exact poses, to be spoiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from instantavatar_ns.check.recording import Recording, read_recording
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig

FRAMES = 11
TO_WORLD = Rotation.from_euler("yxz", [30, 160, 10], degrees=True).as_matrix()
WORLD_ORIGIN = np.array([0.3, 1.0, 2.5])


class Folder:
    """A folder in InstantAvatar's layout whose arrays can be changed.

    Args:
        path: Where to write it.
        subject: The demo subject.
    """

    def __init__(self, path: Path, subject: Path) -> None:
        self.path = path
        for name in ("images", "masks"):
            (path / name).mkdir(parents=True)
            for file in sorted((subject / name).glob("*.png"))[:FRAMES]:
                shutil.copy(file, path / name)
        shutil.copytree(subject / "body", path / "body")
        self.camera = dict(np.load(subject / "cameras.npz"))
        truth = np.load(subject / "truth.npz")
        self.betas = truth["betas"]
        self.poses = truth["poses"][:FRAMES].reshape(-1, 24, 3).astype(np.float64)
        self.transl = truth["transl"][:FRAMES].astype(np.float64)
        body = np.load(path / "body" / "SMPL_NEUTRAL.npz")
        rest = body["v_template"] + body["shapedirs"][..., :10] @ self.betas[0]
        self.pelvis = (body["J_regressor"] @ rest)[0]

    def save(self) -> Path:
        """Write cameras and poses."""
        np.savez(self.path / "cameras.npz", **self.camera)
        np.savez(self.path / "poses.npz", betas=self.betas, thetas=self.poses.reshape(-1, 72), transl=self.transl)
        return self.path

    def move_world(self) -> None:
        """Give poses and camera in a world that is not the camera's."""
        root = Rotation.from_matrix(TO_WORLD) * Rotation.from_rotvec(self.poses[:, 0])
        self.poses[:, 0] = root.as_rotvec()
        self.transl = (self.transl + self.pelvis) @ TO_WORLD.T + WORLD_ORIGIN - self.pelvis
        camera_to_world = np.eye(4)
        camera_to_world[:3, :3], camera_to_world[:3, 3] = TO_WORLD, WORLD_ORIGIN
        self.camera["extrinsic"] = np.linalg.inv(camera_to_world)

    def edit_masks(self, edit: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace each mask."""
        self._edit("masks", edit)

    def edit_images_and_masks(self, edit: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace each image and each mask."""
        self._edit("images", edit)
        self._edit("masks", edit)

    def _edit(self, name: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
        for path in (self.path / name).glob("*.png"):
            Image.fromarray(np.ascontiguousarray(edit(np.asarray(Image.open(path))))).save(path)


def read(folder: Folder) -> Recording:
    """All frames of a folder."""
    everything = {"train_frames": (0, FRAMES, 1), "test_frames": (0, FRAMES, 1)}
    outputs = InstantAvatarDataParserConfig(data=folder.save(), **everything).setup().get_dataparser_outputs("train")
    return read_recording(AvatarDataset(outputs))
