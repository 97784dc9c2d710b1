"""Person and frames that data parsers hand on, beside nerfstudio's images and cameras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.data.masks import MaskEncoding
from instantavatar_ns.utils.errors import InputError

_KEY = "subject"


@dataclass(frozen=True)
class Subject:
    """A person in all poses that are known, and the frames of one split.

    Attributes:
        body_model: Path of the body model, or "free".
        poses: Poses of all splits, in the dataset's world; those of the training frames come first. Cameras name
            their row (`pose_id`).
        num_train: Number of training frames.
        train_numbers: Place of each training frame in the recording.
        world_to_dataset: Rigid transform from nerfstudio's world, z up, to the dataset's.
        frame_numbers: Place of each frame of the split in its recording.
        recording_rows: Rows of all poses of the recording that the split belongs to.
        recording_numbers: Places of these poses in the recording.
        mask_filenames: The person's mask in each frame of the split.
        mask_encoding: Meaning of the values in the masks' files.
        image_size: Height and width of the files, pixels.
        mask_places: Where the masks were given, if their files were made from others; for errors only.
    """

    body_model: str
    poses: PoseSequence
    num_train: int
    train_numbers: Int[Tensor, "train"]
    world_to_dataset: Float[Tensor, "4 4"]
    frame_numbers: Int[Tensor, "frames"]
    recording_rows: Int[Tensor, "recorded"]
    recording_numbers: Int[Tensor, "recorded"]
    mask_filenames: list[Path]
    mask_encoding: MaskEncoding
    image_size: tuple[int, int]
    mask_places: list[str] | None = None

    def load_body(self) -> BodyModel:
        """Load the person's body, on the CPU.

        Raises:
            InputError: See `load_body_model`.
        """
        return load_body_model(self.body_model)

    @property
    def train_poses(self) -> PoseSequence:
        """Poses of the training frames."""
        return self.poses.rows(slice(self.num_train))

    @property
    def stand(self) -> PoseSequence:
        """The first training frame's pose: where the person stands, and the way they face."""
        return self.poses.rows(slice(1))

    @property
    def up(self) -> Float[Tensor, "3"]:
        """The vertical direction in the dataset's world, of unit length."""
        return self.world_to_dataset[:3, 2]

    def metadata(self) -> dict[str, Any]:
        """Return nerfstudio's metadata, a dictionary, with the subject in it."""
        return {_KEY: self}


def subject_of(metadata: Mapping[str, Any]) -> Subject:
    """Return the subject in nerfstudio's metadata of a data parser, a data set or a model.

    Args:
        metadata: As `Subject.metadata` makes it.

    Raises:
        InputError: The data parser is none of this package.
    """
    subject = metadata.get(_KEY)
    if not isinstance(subject, Subject):
        raise InputError(
            "the data parser",
            f"expected a person's poses beside the images, found {', '.join(metadata) or 'nothing'}",
            "Name a data format of this package after the other options, such as instant-avatar-data",
        )
    return subject
