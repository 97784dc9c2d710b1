"""InstantAvatar's preprocessed folder: images, masks, `cameras.npz` and SMPL parameters.

<data>/images/*.png|jpg|...  masks/*.png|npy|...  cameras.npz  poses.npz
       poses_optimized.npz, poses/{train,test}.npz, poses/anim_nerf_{train,test}.npz   optional, better poses
       body/*.npz|pkl        optional, the person's body model
       subject.json          optional, {"train": [start, end], "test": [start, end]}
       novel/                optional, a second recording of the same layout to measure other motions on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from instantavatar_ns.data.cameras import read_cameras
from instantavatar_ns.data.empty_frames import without_empty_frames
from instantavatar_ns.data.folder import find_body_file, has_body, list_images, list_masks
from instantavatar_ns.data.images import check_image_size, tell_orientations
from instantavatar_ns.data.masks import find_encoding
from instantavatar_ns.data.pose_files import read_split_poses
from instantavatar_ns.data.scene import Frames, assemble_outputs
from instantavatar_ns.data.splits import choose_split
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

_OTHER_BETAS = 0.5
"""Difference that moves a body's outline by about a centimetre."""


@dataclass
class InstantAvatarDataParserConfig(DataParserConfig):
    """InstantAvatar's preprocessed folder."""

    _target: type = field(default_factory=lambda: InstantAvatarDataParser)
    """Class to instantiate."""
    data: Path = Path("data/person")
    """Folder with images/, masks/, cameras.npz and poses.npz (or poses/)."""
    body_model: str = "auto"
    """Body model: an SMPL-format .pkl or .npz, "free" (this package's), or "auto" (<data>/body, else free)."""
    poses: str = "auto"
    """Poses to start from: "anim_nerf", the name of a file such as "poses", or "auto" for the folder's best."""
    heldout_poses: str | None = None
    """Poses of the held-out frames, named as `poses`; by default the same."""
    train_frames: tuple[int, int, int] | None = None
    """Training frames: start, end (not included), step; by default subject.json's, else all but a fifth."""
    test_frames: tuple[int, int, int] | None = None
    """Held-out frames: start, end (not included), step; by default subject.json's, else the last fifth."""
    eval_set: Literal["heldout", "novel"] = "heldout"
    """Frames to evaluate on: held-out ones, or <data>/novel, a recording of another motion."""
    downscale: int = 1
    """Divide the images' height and width by this."""
    skip_frames_without_person: bool = False
    """Leave out frames whose masks are all black; otherwise they are an error."""


@dataclass
class InstantAvatarDataParser(DataParser):
    """Reads an InstantAvatar folder; see the module's docstring for the layout."""

    # The base class declares its own config class here, which pyright takes for invariant.
    config: InstantAvatarDataParserConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    includes_time: bool = True

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        config = self.config
        image_filenames = list_images(config.data)
        frame_split = choose_split(config.data, len(image_filenames), config.train_frames, config.test_frames)
        parts = {
            "train": read_frames(config.data, frame_split.train, "train", config.poses),
            "heldout": read_frames(config.data, frame_split.test, "test", config.heldout_poses or config.poses),
        }
        if config.eval_set == "novel":
            novel = config.data / "novel"
            if not novel.is_dir():
                message = "expected a recording of another motion to evaluate on, found no such folder"
                raise InputError(
                    novel, message, "Add one in the layout of the recording, or leave out --eval-set novel"
                )
            parts["novel"] = read_frames(novel, range(len(list_images(novel))), None, "auto")
        for name in parts.keys() - {"train"}:
            _compare_betas(config.data / "novel" if name == "novel" else config.data, parts[name], parts["train"])
        if config.skip_frames_without_person:
            parts = {name: without_empty_frames(name, frames) for name, frames in parts.items()}
        chosen = "train" if split == "train" else config.eval_set
        return assemble_outputs(parts, chosen, find_body_model(config.data, config.body_model), config.downscale)


def _compare_betas(data: Path, frames: Frames, train: Frames) -> None:
    """Say when evaluated poses were fitted with another shape, which places their joints and translations elsewhere."""
    difference = float((frames.poses.betas - train.poses.betas).abs().max())
    if difference > _OTHER_BETAS:
        text = (
            f"The betas of the evaluated frames differ from those of the training frames by {difference:.2g}; the "
            "person keeps the latter. Fit the evaluated poses with them."
        )
        notice(data, text)


def read_frames(data: Path, numbers: Sequence[int], pose_split: Literal["train", "test"] | None, poses: str) -> Frames:
    """Read the chosen frames of an InstantAvatar folder (of the images, only the first one's size is read).

    Args:
        data: The folder.
        numbers: Frames wanted.
        pose_split: Split whose poses the frames have; None when the poses cover the whole folder.
        poses: Name of the poses, "auto" for the best ones.

    Raises:
        InputError: A file is missing or does not fit the others.
    """
    images = list_images(data)
    masks = list_masks(data, images)
    height, width, intrinsics, extrinsics = read_cameras(data / "cameras.npz", len(images))
    check_image_size(images[numbers[0]], (height, width))
    tell_orientations(images, (height, width))
    return Frames(
        numbers=list(numbers),
        image_filenames=[images[number] for number in numbers],
        mask_filenames=[masks[number] for number in numbers],
        image_size=(height, width),
        intrinsics=intrinsics[list(numbers)],
        world_to_camera=extrinsics[list(numbers)],
        poses=read_split_poses(data, poses, pose_split, numbers, len(images)),
        mask_encoding=find_encoding(masks),
    )


def find_body_model(data: Path, body_model: str) -> str:
    """Return the path of the body model to use, or "free".

    Args:
        data: The recording's folder.
        body_model: See `InstantAvatarDataParserConfig.body_model`.

    Raises:
        InputError: The folder has several bodies, so that one must be chosen, or something else in their place.
    """
    if body_model != "auto":
        return body_model
    # A recording of a novel motion shares the body of the subject it belongs to.
    folder = data.parent if data.name == "novel" and not has_body(data) else data
    found = find_body_file(folder)
    if found is None:
        text = "No body model is here; the free body is used. Poses fitted with SMPL need SMPL (--body-model)."
        notice(folder / "body", text)
        return "free"
    return str(found)


instant_avatar_data = DataParserSpecification(
    config=InstantAvatarDataParserConfig(),
    description="InstantAvatar's preprocessed folder: images, masks, cameras.npz, SMPL poses.",
)
