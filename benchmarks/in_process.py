"""What several trainings in one process share, and how their models are evaluated without being loaded anew."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.speed import EvalFrames
from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.data.datamanager import AvatarDataManager
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.deformer import fast_snarf
from instantavatar_ns.deformer.skinning_grid import SkinningSettings
from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.metrics import image_metrics
from instantavatar_ns.model import InstantAvatarModel


@contextmanager
def made_once() -> Iterator[None]:
    """Keep what takes the CPU seconds and is the same in all runs of a subject: decoded frames and skinning weights."""
    read, images = AvatarDataset.get_numpy_image, {}
    build, grids = fast_snarf.build_skinning_grid, {}

    def kept(self: AvatarDataset, image_idx: int) -> Any:
        camera = self.cameras[image_idx]
        key = self.image_filenames[image_idx], int(camera.height), int(camera.width)
        if key not in images:
            images[key] = read(self, image_idx)
        return images[key]

    def kept_grid(
        vertices: torch.Tensor, weights: torch.Tensor, box: VoxelBox, settings: SkinningSettings
    ) -> torch.Tensor:
        key = vertices.cpu().numpy().tobytes(), box.resolution, settings
        if key not in grids:
            grids[key] = build(vertices, weights, box, settings)
        return grids[key]

    AvatarDataset.get_numpy_image, fast_snarf.build_skinning_grid = kept, kept_grid
    try:
        yield
    finally:
        AvatarDataset.get_numpy_image, fast_snarf.build_skinning_grid = read, build


def heldout_set(datamanager: AvatarDataManager, heldout_poses: str | None = None) -> AvatarDataset:
    """The held-out frames of a data manager that evaluates the novel ones.

    Args:
        datamanager: Its model knows the poses of training, held-out and novel frames, in rows that these frames name.
        heldout_poses: Name of their poses, by default those that the data manager was configured with. They are in the
            set's metadata only, not in the model.
    """
    parser = copy.deepcopy(datamanager.dataparser.config)
    parser.eval_set = "heldout"
    parser.heldout_poses = heldout_poses or parser.heldout_poses
    return AvatarDataset(parser.setup().get_dataparser_outputs(split="test"))


def poses_of(dataset: AvatarDataset, model: InstantAvatarModel) -> dict[int, PosedBody]:
    """Poses of a set's frames in a model's world, for `PoseProvider.replacing`."""
    poses = model.poses.posed(dataset.subject.poses)
    rows = dataset.cameras.metadata["pose_id"].flatten().tolist()
    return {row: poses[row] for row in rows}


@torch.no_grad()
def mean_metrics(model: InstantAvatarModel, frames: EvalFrames, lpips_backbone: Path | None) -> dict[str, float]:
    """Averages of the published tables' metrics, of the model in evaluation."""
    model.eval()
    several = [
        image_metrics(model.get_outputs_for_camera(camera)["rgb"], truth, lpips_backbone) for camera, truth in frames
    ]
    return {name: fmean(values[name] for values in several) for name in several[0]}
