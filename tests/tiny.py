"""The tiny configuration of the model that tests train and render on a CPU, and what they build with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from torch import Tensor, nn

from instantavatar_ns.body.canonical import canonical_vertices
from instantavatar_ns.body.model import load_body_model
from instantavatar_ns.data.datamanager import AvatarDataManagerConfig, FrameStore
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.data.subject import subject_of
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.model_config import InstantAvatarModelConfig
from tests.avatars import body_density

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FIELD = {"hash_levels": 4, "log2_hash_entries": 10, "hidden_width": 16}
TINY = InstantAvatarModelConfig(implementation="torch", skinning_resolution=(32, 32, 8), step_size=0.02, **FIELD)
COLOR = (0.9, 0.2, 0.1)


def parse(subject: Path, split: str = "train", **options: Any) -> DataparserOutputs:
    """Outputs of the data parser for a subject in InstantAvatar's layout.

    Args:
        subject: Folder of the subject.
        split: "train" or "test".
        options: Changes to `InstantAvatarDataParserConfig`.
    """
    return InstantAvatarDataParserConfig(data=subject, **options).setup().get_dataparser_outputs(split)


def frame_store(outputs: DataparserOutputs, device: str = "cpu", **options: Any) -> FrameStore:
    """Frames of the data parser's outputs on a device; `options` are changes to `AvatarDataManagerConfig`."""
    return FrameStore(AvatarDataset(outputs), device, AvatarDataManagerConfig(**options), rank=0)


def build(outputs: DataparserOutputs, device: str = "cpu", **changes: Any) -> InstantAvatarModel:
    """A model of the tiny configuration, the same at each call.

    Args:
        outputs: Of the data parser for the training frames.
        device: Where the model lies.
        changes: Changes to `TINY`.
    """
    torch.manual_seed(0)
    model = replace(TINY, **changes).setup(
        scene_box=outputs.scene_box,
        num_train_data=len(outputs.image_filenames),
        metadata=outputs.metadata,
        device=device,
    )
    return model.to(device)


class BodyField(nn.Module):
    """Stands in for a trained field: a body of one color."""

    has_kernels = False

    def __init__(self, outputs: DataparserOutputs) -> None:
        super().__init__()
        body = load_body_model(subject_of(outputs.metadata).body_model)
        vertices = canonical_vertices(body, subject_of(outputs.metadata).poses.betas)
        self._density = body_density(vertices, body.faces)

    def density(self, points: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor]:
        assert not noise, "no noise in evaluation"
        return self._density(points), points

    def forward(self, points: Tensor, noise: float = 0.0, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if count is not None:
            points = torch.where(torch.arange(len(points))[:, None] < count, points, 100.0)
        return self.density(points, noise)[0], torch.tensor(COLOR).expand(len(points), 3)


def build_body(outputs: DataparserOutputs) -> InstantAvatarModel:
    """A model in evaluation whose field is the body itself, its occupancy up to date."""
    model = build(outputs, skinning_resolution=(64, 64, 16)).eval()
    model.field = BodyField(outputs)  # pyright: ignore[reportAttributeAccessIssue]
    model.renderer.avatar = model.renderer.avatar._replace(field=model.field)
    for step in (100, 120):
        model.refresh_occupancy(step)
    return model
