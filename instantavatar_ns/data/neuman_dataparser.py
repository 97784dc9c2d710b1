"""NeuMan as distributed (Jiang et al., ECCV 2022): a moving camera that COLMAP tracked.

    <data>/images/*.png  segmentations/*.png   black is the person
           sparse/cameras.txt, images.txt      COLMAP's world, of any unit
           smpl_output_optimized.pkl|npz       poses and betas of each frame, without a place
           alignments.npy                      of each image the place: scale, rotation and translation in that world
           {train,val,test}_split.txt          optional: the published split, names of images
           body/*.npz|pkl                      optional: the neutral SMPL model

Lengths become metres by the scale of the alignments. Where that differs from frame to frame, the body is moved along
its rays, so that the picture stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.data.cameras import check_cameras
from instantavatar_ns.data.colmap_text import ColmapImage, read_colmap
from instantavatar_ns.data.folder import list_images, masks_in
from instantavatar_ns.data.masks import MaskEncoding
from instantavatar_ns.data.scene import Frames, assemble_outputs
from instantavatar_ns.data.smpl_file import find_smpl
from instantavatar_ns.data.world_poses import move_rigidly
from instantavatar_ns.motion.pose_archives import read_content
from instantavatar_ns.motion.smpl_arrays import read_rotations
from instantavatar_ns.utils.errors import InputError

_POSES = ("smpl_output_optimized.npz", "smpl_output_optimized.pkl", "smpl_output_romp.pkl")
_BLACK_PERSON = MaskEncoding(white=255.0, inverted=True)
_ADVICE = "Check the option data: it is a scene's folder of NeuMan as distributed, such as bike"
_SPREAD = 1.2
"""Ratio of the alignments' scales in a scene that are one person's."""


@dataclass
class NeuManDataParserConfig(DataParserConfig):
    """A scene of NeuMan as distributed."""

    _target: type = field(default_factory=lambda: NeuManDataParser)
    """Class to instantiate."""
    data: Path = Path("data/neuman/bike")
    """A scene's folder with images/, segmentations/, sparse/, smpl_output_optimized.pkl and alignments.npy."""
    body_model: str = "auto"
    """Body model: a path to the neutral SMPL model (licensed, from smpl.is.tue.mpg.de), "auto" for the one in
    <data>/body, or "free" for the body of this package, which fits the subject's shape only roughly."""
    train_frames: tuple[int, int, int] | None = None
    """Training frames: start, end (not included) and step. By default those of train_split.txt, else of NeuMan's rule:
    four fifths of the frames, the others evenly spread."""
    test_frames: tuple[int, int, int] | None = None
    """Held-out frames: start, end (not included) and step. By default those of test_split.txt, else of that rule."""
    downscale: int = 1
    """Divide the images' height and width by this."""


@dataclass
class NeuManDataParser(DataParser):
    """Reads a scene of NeuMan; see the module's docstring for the layout."""

    # The base class declares its own config class here, which pyright takes for invariant.
    config: NeuManDataParserConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    includes_time: bool = True

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        images = list_images(config.data)
        body_model = find_smpl(config.data, config.body_model, "NeuMan", "SMPL_NEUTRAL")
        cameras = read_colmap(config.data / "sparse")
        names = {"train": config.train_frames, "test": config.test_frames}
        rows = {name: split_rows(config.data, images, name, chosen) for name, chosen in names.items()}
        poses, world_to_camera = read_scene(config.data, images, cameras, body_model)
        masks = {path.stem: path for path in masks_in(config.data / "segmentations")}
        size = cameras[images[0].name].size
        parts = {}
        for name, chosen in rows.items():
            missing = [images[row].stem for row in chosen if images[row].stem not in masks]
            if missing:
                message = f"expected a mask for each image, found none for {missing[0]}"
                raise InputError(config.data / "segmentations", message, _ADVICE)
            parts[name] = Frames(
                numbers=chosen,
                image_filenames=[images[row] for row in chosen],
                mask_filenames=[masks[images[row].stem] for row in chosen],
                image_size=size,
                intrinsics=torch.from_numpy(np.stack([cameras[images[row].name].intrinsic for row in chosen])),
                world_to_camera=torch.from_numpy(world_to_camera[chosen]),
                poses=poses.rows(chosen),
                mask_encoding=_BLACK_PERSON,
            )
        return assemble_outputs(parts, "train" if split == "train" else "test", body_model, config.downscale)


def split_rows(data: Path, images: list[Path], name: str, chosen: tuple[int, int, int] | None) -> list[int]:
    """Rows of the images of a split.

    Args:
        data: Folder of the scene.
        images: All images of the scene, in order.
        name: "train" or "test".
        chosen: Start, end (not included) and step of the frames; None for those of `<name>_split.txt`, or else of
            NeuMan's own rule.

    Raises:
        InputError: A range leaves the scene, or a split names an image that is not there.
    """
    if chosen is not None:
        rows = list(range(*chosen))
        if not rows or rows[0] < 0 or rows[-1] >= len(images):
            message = f"expected frames within the {len(images)} images found, asked for {chosen}"
            raise InputError(data, message, "Give train_frames and test_frames that the scene has")
        return rows
    path = data / f"{name}_split.txt"
    if path.is_file():
        places = {image.name: row for row, image in enumerate(images)}
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        missing = [image for image in names if image not in places]
        if missing or not names:
            found = f"found no image {missing[0]}" if missing else "found it empty"
            raise InputError(path, f"expected names of images, {found}", _ADVICE)
        return [places[image] for image in names]
    # NeuMan's own rule: a fifth of the frames evenly spread, of which the first half are for tests.
    count = len(images)
    step = count / max(count // 5, 1)
    held_out = list(range(count))[int(step) // 2 :: int(step)]
    test = held_out[: max(len(held_out) // 2, 1)]
    return [row for row in range(count) if row not in held_out] or [0] if name == "train" else test


def read_scene(
    data: Path, images: list[Path], cameras: Mapping[str, ColmapImage], body_model: str
) -> tuple[PoseSequence, Float[np.ndarray, "images 4 4"]]:
    """Poses and world-to-camera transforms of all images, in COLMAP's world scaled to metres.

    Args:
        data: Folder of the scene.
        images: All images of the scene, in order.
        cameras: By the names of the images; lengths in COLMAP's unit.
        body_model: Path of the SMPL model, or "free".

    Returns:
        Poses, a row for each image, and transforms to OpenCV's cameras.

    Raises:
        InputError: A file is missing, or lacks an image.
    """
    thetas, betas = _read_poses(data, images)
    alignments = _read_alignments(data / "alignments.npy", images)
    scales = np.cbrt(np.linalg.det(alignments[:, :, :3]))
    if (scales <= 0).any():
        message = "expected alignments without mirroring, found one with a negative determinant"
        raise InputError(data / "alignments.npy", message, _ADVICE)
    scale = float(np.median(scales))
    if scales.max() > _SPREAD * scales.min():
        message = f"expected alignments of about one scale, found scales from {scales.min():.3g} to {scales.max():.3g}"
        raise InputError(data / "alignments.npy", message, _ADVICE)
    missing = [image.name for image in images if image.name not in cameras]
    if missing:
        message = f"expected the camera of each image, found none of {missing[0]}"
        raise InputError(data / "sparse" / "images.txt", message, _ADVICE)
    world_to_camera = np.stack([cameras[image.name].world_to_camera for image in images])
    world_to_camera[:, :3, 3] /= scale
    intrinsics = np.stack([cameras[image.name].intrinsic for image in images])
    check_cameras(data / "sparse", intrinsics, world_to_camera, cameras[images[0].name].size)
    centers = np.linalg.inv(world_to_camera)[:, :3, 3]
    # A body of the scene's scale, seen from a camera's center, looks like one of the frame's own scale farther away.
    places = alignments[:, :, 3] / scales[:, None] + centers * (1 - scale / scales)[:, None]
    poses = PoseSequence(
        torch.from_numpy(betas).float(),
        torch.from_numpy(thetas[:, :3]).float(),
        torch.from_numpy(thetas[:, 3:]).float(),
        torch.zeros(len(images), 3),
    )
    return move_rigidly(poses, load_body_model(body_model), alignments[:, :, :3] / scales[:, None, None], places), (
        world_to_camera
    )


def _read_poses(data: Path, images: list[Path]) -> tuple[Float[np.ndarray, "images 72"], Float[np.ndarray, "10"]]:
    path = next((data / name for name in _POSES if (data / name).is_file()), None)
    if path is None:
        raise InputError(data / _POSES[1], "expected the poses, found no such file", _ADVICE)
    content = read_content(path)
    people = [content] if isinstance(content, Mapping) and "pose" in content else list(_dictionaries(content))
    if len(people) != 1 or not {"pose", "betas"} <= set(people[0]):
        message = f"expected pose and betas of one person, found {len(people)}"
        raise InputError(path, message, _ADVICE)
    thetas, _ = read_rotations(path, {"pose": np.asarray(people[0]["pose"], np.float64)})
    rows = _image_numbers(path, images, len(thetas))
    betas = np.asarray(people[0]["betas"], np.float64).reshape(-1, 10)
    return thetas[rows], np.median(betas, axis=0)


def _dictionaries(content: Any) -> list[Mapping[str, Any]]:
    return [item for item in content.values() if isinstance(item, Mapping)] if isinstance(content, Mapping) else []


def _image_numbers(path: Path, images: list[Path], poses: int) -> list[int]:
    """Row of each image's pose: the number in its name."""
    numbers = [int(image.stem) if image.stem.isdecimal() else -1 for image in images]
    if min(numbers) < 0 or max(numbers) >= poses:
        message = f"expected a pose for each image by the number in its name, found {poses} poses for {images[-1].name}"
        raise InputError(path, message, _ADVICE)
    return numbers


def _read_alignments(path: Path, images: list[Path]) -> Float[np.ndarray, "images 3 4"]:
    """[s R | t] of each image, from the body to COLMAP's world; the file has them transposed."""
    if not path.is_file():
        raise InputError(path, "expected the scene's alignments, found no such file", _ADVICE)
    content = read_content(path)
    missing = [image.name for image in images if not isinstance(content, Mapping) or image.name not in content]
    if missing:
        raise InputError(path, f"expected the alignment of each image, found none of {missing[0]}", _ADVICE)
    matrices = np.stack([np.asarray(content[image.name], np.float64) for image in images])
    if matrices.shape[1:] != (4, 3) or not np.isfinite(matrices).all():
        message = f"expected alignments (4, 3) of finite numbers, found shape {matrices.shape[1:]} or others"
        raise InputError(path, message, _ADVICE)
    return matrices.swapaxes(1, 2)


neuman_data = DataParserSpecification(
    config=NeuManDataParserConfig(),
    description="NeuMan as distributed: images, segmentations, COLMAP's cameras, SMPL poses and alignments.",
)
