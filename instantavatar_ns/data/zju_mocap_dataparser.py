"""ZJU-MoCap as distributed (Peng et al., CVPR 2021), trained on from one of its cameras.

    <data>/annots.npy              cameras (K, R, T in millimetres, D) and the images of each frame and camera
           <camera>/<image>.jpg    as annots.npy names them
           mask/ or mask_cihp/     the same names as .png, not 0 where the person is
           new_params/ or params/  <number>.npy of each frame: poses, shapes, Rh, Th, as EasyMocap has them
           body/*.npz|pkl          optional: the neutral SMPL model

Images and masks are undistorted once, into a cache folder; the data set itself is only read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.model import rotation_matrices
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.data.cameras import check_cameras
from instantavatar_ns.data.pixel_centers import resize_intrinsics
from instantavatar_ns.data.prepared_frames import Picture, cache_folder, prepared_frames
from instantavatar_ns.data.scene import Frames, assemble_outputs, reduced_size
from instantavatar_ns.data.smpl_file import find_smpl
from instantavatar_ns.data.splits import FrameRange
from instantavatar_ns.data.world_poses import move_rigidly
from instantavatar_ns.motion.pose_archives import read_content
from instantavatar_ns.motion.smpl_arrays import numbers, read_rotations
from instantavatar_ns.utils.errors import InputError

_TRAIN_FRAMES: FrameRange = (0, 500, 5)
_TEST_FRAMES: FrameRange = (0, 500, 30)
_KEYS = ("poses", "shapes", "Rh", "Th")
_ADVICE = "Check the option data: it is a subject's folder of ZJU-MoCap as distributed, such as CoreView_377"


@dataclass
class ZjuMocapDataParserConfig(DataParserConfig):
    """A subject of ZJU-MoCap as distributed, seen by one camera."""

    _target: type = field(default_factory=lambda: ZjuMocapDataParser)
    """Class to instantiate."""
    data: Path = Path("data/zju_mocap/CoreView_377")
    """A subject's folder with annots.npy, images, masks and params."""
    body_model: str = "auto"
    """Body model: a path to the neutral SMPL model (licensed, from smpl.is.tue.mpg.de), "auto" for the one in
    <data>/body, or "free" for the body of this package, which fits the subject's shape only roughly."""
    camera: int = 4
    """Camera to train on, by its place in annots.npy; papers on one camera take the fifth."""
    test_cameras: tuple[int, ...] | None = None
    """Cameras to measure on; by default all others."""
    train_frames: FrameRange | None = None
    """Training frames: start, end (not included) and step; by default 0 500 5, as far as the subject has them."""
    test_frames: FrameRange | None = None
    """Frames of each test camera; by default 0 500 30."""
    downscale: int = 2
    """Divide the images' height and width by this; the published figures are at half of 1024x1024."""
    cache_dir: Path | None = None
    """Folder for the undistorted frames; by default ~/.cache/instantavatar_ns/zju_mocap."""


@dataclass
class ZjuMocapDataParser(DataParser):
    """Reads a subject of ZJU-MoCap; see the module's docstring for the layout."""

    # The base class declares its own config class here, which pyright takes for invariant.
    config: ZjuMocapDataParserConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    includes_time: bool = True

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        annotations = read_annotations(config.data)
        body_model = find_smpl(config.data, config.body_model, "ZJU-MoCap", "SMPL_NEUTRAL")
        count = len(annotations.intrinsics)
        others = tuple(camera for camera in range(count) if camera != config.camera)
        test_cameras = others if config.test_cameras is None else config.test_cameras
        for camera in (config.camera, *test_cameras):
            if not 0 <= camera < count:
                message = f"expected one of the {count} cameras of annots.npy, asked for {camera}"
                raise InputError(config.data, message, "Give camera and test_cameras from 0 on")
        train = self._frames(annotations, config.train_frames, _TRAIN_FRAMES)
        test = self._frames(annotations, config.test_frames, _TEST_FRAMES)
        views = {"train": [(config.camera, frame) for frame in train]}
        views["test"] = [(camera, frame) for camera in test_cameras or (config.camera,) for frame in test]
        parts = {name: self._read(annotations, wanted, body_model) for name, wanted in views.items()}
        return assemble_outputs(parts, "train" if split == "train" else "test", body_model, downscale=1)

    def _frames(self, annotations: Annotations, chosen: FrameRange | None, published: FrameRange) -> list[int]:
        total = len(annotations.images)
        frames = [frame for frame in range(*(chosen or published)) if chosen or frame < total]
        if not frames or frames[0] < 0 or frames[-1] >= total:
            message = f"expected frames within the {total} of annots.npy, asked for {chosen}"
            raise InputError(self.config.data, message, "Give train_frames and test_frames that the subject has")
        return frames

    def _read(self, annotations: Annotations, views: list[tuple[int, int]], body_model: str) -> Frames:
        config = self.config
        names = [f"{camera:02d}_{frame:06d}" for camera, frame in views]
        files = [annotations.images[frame][camera] for camera, frame in views]
        masks = [find_mask(config.data, file) for file in files]
        sizes = [cv2.imread(str(mask), cv2.IMREAD_UNCHANGED) for mask in masks[:1]]
        full = _image_size(config.data / files[0])
        if sizes[0] is None or sizes[0].shape[:2] != full:
            found = None if sizes[0] is None else sizes[0].shape[:2]
            raise InputError(masks[0], f"expected a mask of height and width {full}, found {found}", _ADVICE)
        size = reduced_size(full, config.downscale)
        read = partial(_pictures, config.data, annotations, views, masks, size)
        cache = cache_folder(config.cache_dir, "zju_mocap")
        image_files, mask_files = prepared_frames([config.data / "annots.npy"], [size, files], names, read, cache)
        cameras = [camera for camera, _ in views]
        intrinsics = torch.from_numpy(annotations.intrinsics[cameras])
        world_to_camera = annotations.world_to_camera[cameras]
        check_cameras(config.data / "annots.npy", intrinsics.numpy(), world_to_camera, full)
        return Frames(
            numbers=[frame for _, frame in views],
            image_filenames=image_files,
            mask_filenames=mask_files,
            image_size=size,
            intrinsics=resize_intrinsics(intrinsics, size[1] / full[1], size[0] / full[0]),
            world_to_camera=torch.from_numpy(world_to_camera),
            poses=read_params(config.data, files, body_model),
        )


@dataclass(frozen=True)
class Annotations:
    """Content of `annots.npy`.

    Attributes:
        images: Paths of each frame's images, by their cameras.
        intrinsics: Camera matrices, pixels.
        world_to_camera: OpenCV's axes, metres.
        distortion: OpenCV's coefficients k1, k2, p1, p2, k3.
    """

    images: Sequence[Sequence[str]]
    intrinsics: Float[np.ndarray, "cameras 3 3"]
    world_to_camera: Float[np.ndarray, "cameras 4 4"]
    distortion: Float[np.ndarray, "cameras 5"]


def read_annotations(data: Path) -> Annotations:
    """Read `annots.npy`; nothing that it asks for is run.

    Raises:
        InputError: It is missing, damaged or incomplete.
    """
    path = data / "annots.npy"
    if not path.is_file():
        raise InputError(path, "expected cameras and images, found no such file", _ADVICE)
    content = read_content(path)
    if not isinstance(content, Mapping) or not {"cams", "ims"} <= set(content):
        raise InputError(path, "expected a dictionary with cams and ims, found another", _ADVICE)
    cams = content["cams"]
    missing = [key for key in ("K", "R", "T", "D") if key not in cams]
    if missing:
        raise InputError(path, f"expected cams with K, R, T and D, found no {', '.join(missing)}", _ADVICE)
    try:
        intrinsics, rotations = (np.asarray(cams[key], np.float64).reshape(-1, 3, 3) for key in ("K", "R"))
        positions = np.asarray(cams["T"], np.float64).reshape(len(rotations), 3) / 1000
        distortion = np.asarray(cams["D"], np.float64).reshape(len(rotations), 5)
    except ValueError as error:
        raise InputError(path, f"expected K, R, T and D of each camera ({error})", _ADVICE) from error
    world_to_camera = np.tile(np.eye(4), (len(rotations), 1, 1))
    world_to_camera[:, :3, :3], world_to_camera[:, :3, 3] = rotations, positions
    images = [[str(name) for name in np.asarray(frame["ims"]).reshape(-1)] for frame in content["ims"]]
    if not images or any(len(names) != len(rotations) for names in images):
        raise InputError(path, f"expected images of {len(rotations)} cameras in each frame, found others", _ADVICE)
    return Annotations(images, intrinsics, world_to_camera, distortion)


def find_mask(data: Path, image: str) -> Path:
    """Mask of an image: that of `mask/`, else of `mask_cihp/`.

    Args:
        data: Folder of the subject.
        image: Path of the image in it, as `annots.npy` has it.

    Raises:
        InputError: There is none.
    """
    names = [data / folder / Path(image).with_suffix(".png") for folder in ("mask", "mask_cihp")]
    found = next((path for path in names if path.is_file()), None)
    if found is None:
        raise InputError(names[0], "expected the mask of an image, found no such file", _ADVICE)
    return found


def read_params(data: Path, images: Sequence[str], body_model: str) -> PoseSequence:
    """Poses of images. EasyMocap turns the body by Rh about the world's origin, and then moves it by Th.

    Args:
        data: Folder of the subject.
        images: Their paths, as `annots.npy` has them.
        body_model: Path of the SMPL model, or "free".

    Returns:
        Poses in the data set's world, metres, a row for each image.

    Raises:
        InputError: A file is missing or incomplete.
    """
    folder = next((data / name for name in ("new_params", "params") if (data / name).is_dir()), data / "params")
    rows: dict[str, list[np.ndarray]] = {key: [] for key in _KEYS}
    cache: dict[int, Mapping] = {}
    for image in images:
        number = frame_number(image)
        path = folder / f"{number}.npy"
        if not path.is_file():
            raise InputError(path, f"expected the pose of {image}, found no such file", _ADVICE)
        content = cache.setdefault(number, read_content(path))
        missing = [key for key in _KEYS if not isinstance(content, Mapping) or key not in content]
        if missing:
            raise InputError(path, f"expected {', '.join(_KEYS)}, found no {', '.join(missing)}", _ADVICE)
        for key in _KEYS:
            values = numbers(path, key, content[key]).reshape(-1)
            if not np.isfinite(values).all():
                raise InputError(path, f"expected finite numbers, found NaN or infinity in {key}", _ADVICE)
            rows[key].append(values)
    thetas, _ = read_rotations(folder, {"poses": np.stack(rows["poses"])})
    turns = rotation_matrices(torch.from_numpy(np.stack(rows["Rh"]).reshape(-1, 3))).numpy()
    poses = PoseSequence(
        torch.from_numpy(np.median(np.stack(rows["shapes"]), axis=0)[:10]).float(),
        torch.from_numpy(thetas[:, :3]).float(),
        torch.from_numpy(thetas[:, 3:]).float(),
        torch.zeros(len(thetas), 3),
    )
    return move_rigidly(poses, load_body_model(body_model), turns, np.stack(rows["Th"]).reshape(-1, 3))


def frame_number(image: str) -> int:
    """Number in an image's name that its params have: `000012.jpg`, or `..._Camera_(1)_0013_2019-....jpg`.

    Raises:
        InputError: The name has no number.
    """
    stem = Path(image).stem
    found = re.search(r"_(\d{4})_\d{4}-", stem) or re.search(r"(\d+)$", stem)
    if found is None:
        raise InputError(image, "expected an image with a number in its name, found none", _ADVICE)
    return int(found[1])


def _image_size(path: Path) -> tuple[int, int]:
    image = cv2.imread(str(path))
    if image is None:
        raise InputError(path, "expected a readable image, found none", _ADVICE)
    return image.shape[0], image.shape[1]


def _pictures(
    data: Path,
    annotations: Annotations,
    views: list[tuple[int, int]],
    masks: list[Path],
    size: tuple[int, int],
) -> Iterator[Picture]:
    for (camera, frame), path in zip(views, masks, strict=True):
        file = data / annotations.images[frame][camera]
        image, labels = cv2.imread(str(file)), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image is None or labels is None or labels.shape[:2] != image.shape[:2]:
            broken = file if image is None else path
            raise InputError(broken, "expected a readable image and a mask of its size, found another", _ADVICE)
        labels = labels.max(axis=2) if labels.ndim == 3 else labels
        mask = np.where(labels > 0, np.uint8(255), np.uint8(0))
        lens = annotations.intrinsics[camera], annotations.distortion[camera]
        image, mask = (cv2.undistort(pixels, *lens) for pixels in (image, mask))
        if size != image.shape[:2]:
            image, mask = (cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA) for pixels in (image, mask))
        yield np.asarray(image), np.asarray(mask)


zju_mocap_data = DataParserSpecification(
    config=ZjuMocapDataParserConfig(),
    description="ZJU-MoCap as distributed, from one camera: annots.npy, mask/, params/.",
)
