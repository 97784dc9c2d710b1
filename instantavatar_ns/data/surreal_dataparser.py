"""A clip of SURREAL as distributed (Varol et al., CVPR 2017), or of a set that is made the same way.

    <data>/<clip>_c0001.mp4        the video
           <clip>_c0001_info.mat   pose (72, T), shape (10, T), joints3D (3, 24, T), zrot, camLoc
           <clip>_c0001_segm.mat   segm_1 ... segm_T, labels of the body's parts, 0 where nobody is
           body/*.npz|pkl          optional: the SMPL model of the clip's gender

The world is Blender's, in which -y is up. The root's rotation in the file is that of the motion, whose z is up, before
the scene's turn (`zrot`); joints3D tells where the body stands. The camera is SURREAL's: 60 mm on a sensor of 32 mm.
Its matrix in Blender is left-handed, so the pictures are mirrored: they are mirrored back here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from scipy.io import loadmat
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.body.smpl import NUM_BETAS, NUM_JOINTS
from instantavatar_ns.data.cameras import check_cameras
from instantavatar_ns.data.empty_frames import without_empty_frames
from instantavatar_ns.data.prepared_frames import Picture, cache_folder, prepared_frames
from instantavatar_ns.data.scene import Frames, assemble_outputs
from instantavatar_ns.data.smpl_file import find_smpl
from instantavatar_ns.data.splits import choose_split
from instantavatar_ns.motion.smpl_arrays import read_rotations
from instantavatar_ns.utils.errors import InputError

_FOCAL_MM, _SENSOR_MM = 60.0, 32.0
_CAMERA_AXES = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""World to OpenCV's camera that sees the pictures which were mirrored back."""
_KEYS = ("pose", "shape", "joints3D", "zrot", "camLoc")
_ADVICE = "Check the option data: it is a folder with a clip's .mp4, _info.mat and _segm.mat, as SURREAL has them"


@dataclass
class SurrealDataParserConfig(DataParserConfig):
    """A clip of SURREAL as distributed."""

    _target: type = field(default_factory=lambda: SurrealDataParser)
    """Class to instantiate."""
    data: Path = Path("data/surreal/clip")
    """A folder with the clip's .mp4, _info.mat and _segm.mat; or one of these files, where the folder has several
    clips."""
    body_model: str = "auto"
    """Body model: a path to the SMPL model of the clip's gender (licensed, from smpl.is.tue.mpg.de), "auto" for the one
    in body/, or "free" for the body of this package, which fits the subject's shape only roughly."""
    heldout_clip: Path | None = None
    """Another clip of the same person, to measure on: its _info.mat. By default the last fifth of the clip."""
    train_frames: tuple[int, int, int] | None = None
    """Training frames: start, end (not included) and step."""
    test_frames: tuple[int, int, int] | None = None
    """Held-out frames: start, end (not included) and step."""
    cache_dir: Path | None = None
    """Folder for the frames; by default ~/.cache/instantavatar_ns/surreal."""
    skip_frames_without_person: bool = False
    """Leave out frames in which the person is outside of the image; otherwise they are an error."""


@dataclass
class SurrealDataParser(DataParser):
    """Reads a clip of SURREAL; see the module's docstring for the layout."""

    # The base class declares its own config class here, which pyright takes for invariant.
    config: SurrealDataParserConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    includes_time: bool = True

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        clip = find_clip(config.data)
        body_model = find_smpl(clip.parent, config.body_model, "SURREAL", "SMPL_MALE or SMPL_FEMALE")
        count = len(read_clip_poses(clip)[1])
        frame_split = choose_split(clip.parent, count, config.train_frames, config.test_frames)
        parts = {"train": self._read(clip, frame_split.train, body_model)}
        if config.heldout_clip is None:
            parts["test"] = self._read(clip, frame_split.test, body_model)
        else:
            other = find_clip(config.heldout_clip)
            numbers = range(*config.test_frames) if config.test_frames else range(len(read_clip_poses(other)[1]))
            # A recording of its own: its frames do not continue the clip's.
            parts["novel"] = self._read(other, numbers, body_model)
        if config.skip_frames_without_person:
            parts = {name: without_empty_frames(name, frames) for name, frames in parts.items()}
        chosen = "train" if split == "train" else next(name for name in parts if name != "train")
        return assemble_outputs(parts, chosen, body_model, downscale=1)

    def _read(self, clip: Path, numbers: Sequence[int], body_model: str) -> Frames:
        cache = cache_folder(self.config.cache_dir, "surreal")
        video, segmentation = clip.with_suffix(".mp4"), clip.with_name(f"{clip.name}_segm.mat")
        for path in (video, segmentation):
            if not path.is_file():
                raise InputError(path, "expected a part of the clip, found no such file", _ADVICE)
        read = partial(_pictures, video, segmentation, list(numbers))
        names = [f"{number:06d}" for number in numbers]
        images, masks = prepared_frames([video, segmentation], None, names, read, cache)
        height, width = cv2.imread(str(masks[0]), cv2.IMREAD_GRAYSCALE).shape[:2]
        poses, intrinsic, world_to_camera = read_clip(clip, (height, width), body_model)
        return Frames(
            numbers=list(numbers),
            image_filenames=images,
            mask_filenames=masks,
            image_size=(height, width),
            intrinsics=torch.from_numpy(intrinsic).expand(len(numbers), 3, 3),
            world_to_camera=torch.from_numpy(world_to_camera).expand(len(numbers), 4, 4),
            poses=poses.rows(list(numbers)),
        )


def find_clip(data: Path) -> Path:
    """Path of a clip's files without `_info.mat`.

    Args:
        data: One of the clip's files, or the folder of one clip.

    Raises:
        InputError: There is none, or several.
    """
    if not data.is_dir():
        stem = data.stem
        for ending in ("_info", "_segm", "_depth"):
            stem = stem.removesuffix(ending)
        clip = data.with_name(stem)
        if not clip.with_name(f"{stem}_info.mat").is_file():
            raise InputError(data, "expected a clip's .mp4 or _info.mat, found no _info.mat of it", _ADVICE)
        return clip
    found = sorted(data.glob("*_info.mat"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:3]) or "none"
        advice = "Choose one: give the path of its _info.mat as data" if found else _ADVICE
        raise InputError(data, f"expected one clip's _info.mat, found {names}", advice)
    return found[0].with_name(found[0].name.removesuffix("_info.mat"))


def read_clip_poses(clip: Path) -> tuple[dict[str, Float[np.ndarray, "..."]], Float[np.ndarray, "frames 72"]]:
    """Arrays of a clip's `_info.mat`, and its rotations of all joints, the root's as the file has it.

    Raises:
        InputError: The file is unreadable, incomplete or holds NaN.
    """
    path = clip.with_name(f"{clip.name}_info.mat")
    content = _load(path, _KEYS)
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise InputError(path, f"expected {', '.join(_KEYS)}, found no {', '.join(missing)}", _ADVICE)
    arrays = {key: np.asarray(content[key], np.float64) for key in _KEYS}
    # MATLAB's arrays lose their last axis where it has one frame only.
    arrays = {key: values if key in ("zrot", "camLoc") else np.atleast_2d(values) for key, values in arrays.items()}
    angles = 3 * NUM_JOINTS
    frames = arrays["pose"].size // angles
    expected = {"pose": (angles, frames), "shape": (NUM_BETAS, frames), "joints3D": (3, NUM_JOINTS, frames)}
    for key, shape in expected.items():
        if arrays[key].size != np.prod(shape) or not np.isfinite(arrays[key]).all():
            message = f"expected {key} of shape {shape} in finite numbers, found {arrays[key].shape}"
            raise InputError(path, message, _ADVICE)
        arrays[key] = arrays[key].reshape(shape)
    thetas, _ = read_rotations(path, {"poses": arrays["pose"].T})
    return arrays, thetas


def read_clip(
    clip: Path, size: tuple[int, int], body_model: str
) -> tuple[PoseSequence, Float[np.ndarray, "3 3"], Float[np.ndarray, "4 4"]]:
    """Poses in Blender's world, the camera matrix, and the world-to-camera transform; in pixels and metres.

    Args:
        clip: Path of the clip's files, without their endings such as `_info.mat`.
        size: Height and width of the video, pixels.
        body_model: Path of the SMPL model, or "free".

    Raises:
        InputError: See `read_clip_poses`; or the camera cannot be right.
    """
    arrays, thetas = read_clip_poses(clip)
    turn = Rotation.from_euler("x", 90, degrees=True) * Rotation.from_euler("z", arrays["zrot"].reshape(-1)[0])
    orient = (turn * Rotation.from_rotvec(thetas[:, :3])).as_rotvec()
    betas = np.median(arrays["shape"], axis=1)
    betas_tensor = torch.from_numpy(betas).float()
    pelvis = load_body_model(body_model).rest(betas_tensor)[1][0].double().numpy()
    poses = PoseSequence(
        betas_tensor,
        torch.from_numpy(orient).float(),
        torch.from_numpy(thetas[:, 3:]).float(),
        torch.from_numpy(arrays["joints3D"][:, 0].T - pelvis).float(),
    )
    height, width = size
    focal = width * _FOCAL_MM / _SENSOR_MM
    # Blender looks through the middle of the image, half a pixel before the center of the pixel there.
    intrinsic = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1.0]])
    transform = np.eye(4)
    transform[:3, :3] = _CAMERA_AXES
    transform[:3, 3] = -transform[:3, :3] @ arrays["camLoc"].reshape(3)
    check_cameras(clip.with_name(f"{clip.name}_info.mat"), intrinsic[None], transform[None], size)
    return poses, intrinsic, transform


def _load(path: Path, names: tuple[str, ...] | list[str]) -> dict[str, Any]:
    try:
        return loadmat(str(path), variable_names=list(names))
    except (OSError, ValueError, NotImplementedError, TypeError) as error:
        raise InputError(path, f"expected a MATLAB file ({error})", _ADVICE) from error


def _pictures(video: Path, segmentation: Path, numbers: list[int]) -> Iterator[Picture]:
    labels = _load(segmentation, [f"segm_{number + 1}" for number in numbers])
    capture, position = cv2.VideoCapture(str(video)), 0
    try:
        for number in numbers:
            while position < number and capture.grab():
                position += 1
            read, image = capture.read()
            if not read:
                message = f"expected a video of at least {max(numbers) + 1} frames, could not read frame {position}"
                raise InputError(video, message, _ADVICE)
            position += 1
            name = f"segm_{number + 1}"
            mask = labels.get(name)
            if mask is None or mask.shape != image.shape[:2]:
                message = f"expected {name} of the video's height and width {image.shape[:2]}, found"
                raise InputError(segmentation, f"{message} {None if mask is None else mask.shape}", _ADVICE)
            yield np.ascontiguousarray(image[:, ::-1]), _white(mask[:, ::-1])
    finally:
        capture.release()


def _white(labels: np.ndarray) -> UInt8[np.ndarray, "height width"]:
    return np.where(labels > 0, np.uint8(255), np.uint8(0))


surreal_data = DataParserSpecification(
    config=SurrealDataParserConfig(),
    description="A clip of SURREAL as distributed: video, _info.mat, _segm.mat.",
)
