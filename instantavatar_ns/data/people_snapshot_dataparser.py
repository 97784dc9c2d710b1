"""PeopleSnapshot as its authors distribute it (Alldieck et al., CVPR 2018).

    <data>/<subject>.mp4  masks.hdf5  camera.pkl  reconstructed_poses.hdf5
           poses/anim_nerf_{train,test}.npz   optional: Anim-NeRF's refined poses of the published splits
           body/*.npz|pkl   optional: the subject's SMPL model

The frames of the split are undistorted once, into a cache folder; the dataset itself is only read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.data.cameras import check_cameras, pixel_count
from instantavatar_ns.data.empty_frames import without_empty_frames
from instantavatar_ns.data.pixel_centers import resize_intrinsics
from instantavatar_ns.data.pose_files import read_split_poses, select_poses
from instantavatar_ns.data.prepared_frames import cache_folder
from instantavatar_ns.data.scene import Frames, assemble_outputs, reduced_size
from instantavatar_ns.data.smpl_file import find_smpl
from instantavatar_ns.data.splits import choose_split
from instantavatar_ns.data.undistorted_video import FEW_FRAMES, VideoSource, check_counts, open_hdf5, undistorted_frames
from instantavatar_ns.motion.readers import poses_from_arrays
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.unpickle import load_plain_pickle

_CAMERA = {
    "camera_f": (2, "the focal lengths in x and y"),
    "camera_c": (2, "the principal point"),
    "camera_k": (5, "OpenCV's distortion k1, k2, p1, p2, k3; zeros where there is none"),
    "camera_rt": (3, "the rotation as an axis-angle vector"),
    "camera_t": (3, "the translation"),
}
"""Numbers in each array of camera.pkl, and their meaning."""
_ADVICE = "Check the option data: it is a subject's folder of PeopleSnapshot as distributed, such as male-3-casual"


@dataclass
class PeopleSnapshotDataParserConfig(DataParserConfig):
    """PeopleSnapshot as distributed: a video, masks, camera and SMPL poses."""

    _target: type = field(default_factory=lambda: PeopleSnapshotDataParser)
    """Class to instantiate."""
    data: Path = Path("data/people_snapshot_public/male-3-casual")
    """A subject's folder with <subject>.mp4, masks.hdf5, camera.pkl and reconstructed_poses.hdf5."""
    body_model: str = "auto"
    """Body model: SMPL_MALE.pkl or SMPL_FEMALE.pkl, "auto" (<data>/body), or "free" (this package's, a rough fit)."""
    poses: Literal["auto", "anim_nerf", "refined", "reconstructed"] = "auto"
    """Poses to start from: poses/<name>_*.npz, or the dataset's own; "auto" is anim_nerf, else reconstructed."""
    train_frames: tuple[int, int, int] | None = None
    """Training frames: start, end (not included), step; by default the published ones, else all but a fifth."""
    test_frames: tuple[int, int, int] | None = None
    """Held-out frames: start, end (not included), step; by default the published ones, else the last fifth."""
    downscale: int = 2
    """Divide the video's height and width by this; the published figures are at half of 1080x1080."""
    cache_dir: Path | None = None
    """Folder for the undistorted frames; by default ~/.cache/instantavatar_ns/people_snapshot."""
    skip_frames_without_person: bool = False
    """Leave out frames whose masks are all black; otherwise they are an error."""


@dataclass
class PeopleSnapshotDataParser(DataParser):
    """Reads a PeopleSnapshot subject; see the module's docstring for the layout."""

    # The base class declares its own config class here, which pyright takes for invariant.
    config: PeopleSnapshotDataParserConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    includes_time: bool = True

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        source, world_to_camera = read_recording(config.data)
        with open_hdf5(source.masks, ("masks",), _ADVICE) as file:
            shape = getattr(file["masks"], "shape", ())
        if len(shape) != 3:
            message = f"expected masks of shape (frames, height, width), found {shape}"
            raise InputError(source.masks, message, _ADVICE)
        num_frames = shape[0]
        check_counts(source, num_frames)
        frame_split = choose_split(config.data, num_frames, config.train_frames, config.test_frames)
        body_model = find_smpl(config.data, config.body_model, "PeopleSnapshot", "SMPL_MALE or SMPL_FEMALE")
        names: dict[Literal["train", "test"], Sequence[int]] = {"train": frame_split.train, "test": frame_split.test}
        poses = {name: self._read_poses(name, numbers, num_frames) for name, numbers in names.items()}
        size = reduced_size(source.size, config.downscale)
        # Both splits share a cache, so that the video is read once.
        numbers = sorted({*frame_split.train, *frame_split.test})
        images, masks = undistorted_frames(source, numbers, size, cache_folder(config.cache_dir, "people_snapshot"))
        rows = {number: row for row, number in enumerate(numbers)}
        scale_y, scale_x = size[0] / source.size[0], size[1] / source.size[1]
        intrinsics = resize_intrinsics(torch.from_numpy(source.intrinsics), scale_x, scale_y)
        parts = {
            name: Frames(
                numbers=list(wanted),
                image_filenames=[images[rows[number]] for number in wanted],
                mask_filenames=[masks[rows[number]] for number in wanted],
                image_size=size,
                intrinsics=intrinsics.expand(len(wanted), 3, 3),
                world_to_camera=world_to_camera.expand(len(wanted), 4, 4),
                poses=poses[name],
                mask_places=[f"{source.masks}, frame {number}" for number in wanted],
            )
            for name, wanted in names.items()
        }
        if config.skip_frames_without_person:
            parts = {name: without_empty_frames(name, frames) for name, frames in parts.items()}
        return assemble_outputs(parts, "train" if split == "train" else "test", body_model, downscale=1)

    def _read_poses(self, split: Literal["train", "test"], numbers: Sequence[int], num_frames: int) -> PoseSequence:
        data, choice = self.config.data, self.config.poses
        if choice == "auto" and (data / "poses" / "anim_nerf_train.npz").is_file():
            choice = "anim_nerf"
        if choice in ("anim_nerf", "refined"):
            return read_split_poses(data, choice, split, numbers, num_frames)
        path = data / "reconstructed_poses.hdf5"
        poses = read_reconstructed_poses(path)
        # Published subjects have a pose more than frames; both count from the video's first frame.
        return select_poses(path, poses, False, numbers, num_frames, surplus=FEW_FRAMES)


def read_recording(data: Path) -> tuple[VideoSource, torch.Tensor]:
    """The video of a subject's folder with its camera, and the world-to-camera transform (4, 4), OpenCV axes.

    Raises:
        InputError: A file is missing or unreadable, or its camera cannot be right.
    """
    path = data / "camera.pkl"
    if not path.is_file():
        is_other = (data / "cameras.npz").is_file()
        advice = "This is InstantAvatar's layout: ns-train instant-avatar --data FOLDER" if is_other else _ADVICE
        raise InputError(path, "expected the camera, found no such file", advice)
    camera = load_plain_pickle(path)
    missing = [key for key in (*_CAMERA, "width", "height") if key not in camera]
    if missing:
        found = f" beside {', '.join(sorted(camera))}" if camera else ""
        advice = _ADVICE
        if len(missing) == 1 and missing[0] in _CAMERA:
            advice = _meaning(missing[0])
        raise InputError(path, f"expected the camera, did not find {', '.join(missing)}{found}", advice)
    values = {key: _numbers(path, key, camera[key]) for key in _CAMERA}
    size = pixel_count(path, "height", camera["height"]), pixel_count(path, "width", camera["width"])
    intrinsics = np.diag([*values["camera_f"], 1.0])
    intrinsics[:2, 2] = values["camera_c"]
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = cv2.Rodrigues(values["camera_rt"])[0]
    world_to_camera[:3, 3] = values["camera_t"]
    check_cameras(path, intrinsics[None], world_to_camera[None], size)
    source = VideoSource(
        video=_find_video(data),
        masks=data / "masks.hdf5",
        intrinsics=intrinsics,
        distortion=values["camera_k"],
        size=size,
    )
    return source, torch.from_numpy(world_to_camera)


def _numbers(path: Path, key: str, value: np.ndarray) -> Float[np.ndarray, "numbers"]:
    """The finite numbers of an array of camera.pkl, as many as there must be."""
    length, advice = _CAMERA[key][0], _meaning(key)
    if value.dtype.kind not in "iuf":
        raise InputError(path, f"expected {key} of real numbers, found the type {value.dtype}", advice)
    if value.size != length:
        raise InputError(path, f"expected {length} numbers in {key}, found {value.size}", advice)
    if not np.isfinite(value).all():
        raise InputError(path, f"expected finite numbers in {key}, found NaN or infinity", advice)
    return value.astype(np.float64).ravel()


def _meaning(key: str) -> str:
    length, meaning = _CAMERA[key]
    return f"Give {key} as {length} numbers: {meaning}"


def read_reconstructed_poses(path: Path) -> PoseSequence:
    """SMPL parameters of all frames of a `reconstructed_poses.hdf5`.

    Raises:
        InputError: The file is missing, unreadable, incomplete, or holds NaN.
    """
    keys = ("betas", "pose", "trans")
    with open_hdf5(path, keys, _ADVICE) as file:
        return poses_from_arrays(path, {key: np.asarray(file[key]) for key in keys})


def _find_video(data: Path) -> Path:
    named = data / f"{data.resolve().name}.mp4"
    found = [named] if named.is_file() else sorted(data.glob("*.mp4"))
    if len(found) != 1:
        advice = f"Name the one that belongs to masks.hdf5 {named.name}" if found else _ADVICE
        raise InputError(named, f"expected the subject's video, found {len(found)} .mp4 files", advice)
    return found[0]


people_snapshot_data = DataParserSpecification(
    config=PeopleSnapshotDataParserConfig(),
    description="PeopleSnapshot as distributed: video, masks.hdf5, camera.pkl, reconstructed_poses.hdf5.",
)
