"""The method for videos in the wild: what it is made of, and a few steps of it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from torch import Tensor

from instantavatar_ns.config import instant_avatar, instant_avatar_wild
from instantavatar_ns.data.datamanager import AvatarDataManager
from instantavatar_ns.pipeline import AvatarPipeline, AvatarPipelineConfig
from instantavatar_ns.utils.errors import InputError
from tests.backbones import vgg_state
from tests.tiny import FIELD

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vgg_state(tmp_path_factory.mktemp("vgg") / "vgg.pth")


def pipeline(demo_subject: Path, vgg: Path, **datamanager) -> AvatarPipeline:
    """The method's pipeline with a small field and two patches of 16 pixels a step."""
    config = copy.deepcopy(instant_avatar_wild.config.pipeline)
    assert isinstance(config, AvatarPipelineConfig)
    config.datamanager = replace(
        config.datamanager, data=demo_subject, train_num_rays_per_batch=512, patch_size=16, **datamanager
    )
    config.model = replace(
        config.model,
        implementation="torch",
        skinning_resolution=(48, 48, 12),
        step_size=0.02,
        vgg_backbone=vgg,
        **FIELD,
    )
    torch.manual_seed(0)
    return config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)


def callbacks_before(pipeline: AvatarPipeline, step: int) -> None:
    attributes = TrainingCallbackAttributes(None, None, None, None)  # pyright: ignore[reportArgumentType]
    for callback in pipeline.get_training_callbacks(attributes):
        callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)


def gradient(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_rate_is_a_sixth() -> None:
    rates = [method.config.optimizers["field"]["optimizer"].lr for method in (instant_avatar, instant_avatar_wild)]
    assert rates == [6e-3, 1e-3]


def test_step_has_the_terms_on_patches_from_the_start(demo_subject: Path, vgg: Path) -> None:
    trained = pipeline(demo_subject, vgg)
    callbacks_before(trained, 0)
    _, loss_dict, _ = trained.get_train_loss_dict(0)
    assert set(loss_dict) == {
        *("rgb_loss", "mask_loss", "hard_surface_loss", "occupancy_loss", "empty_loss", "pose_prior"),
        *("lpips_loss", "depth_loss"),
    }
    assert all(loss.isfinite() for loss in loss_dict.values())
    # Two patches, each from 0 (alike) to about 1, with the weight of 0.01.
    assert 1e-4 < loss_dict["lpips_loss"] < 0.02
    loss_dict["lpips_loss"].backward()
    corrections = trained.model.pose_refinement.knots.grad  # pyright: ignore
    assert corrections is not None and corrections.any(), "poses are corrected from the first step on"
    assert gradient(trained.model.field).isfinite().all() and gradient(trained.model.field).any()
    assert not any("vgg" in name or "lpips" in name for name in trained.state_dict()), "checkpoints stay small"


def test_first_samples_lie_near_the_body_and_learned_ones_do_not_depend_on_it(demo_subject: Path, vgg: Path) -> None:
    trained = pipeline(demo_subject, vgg)
    model = trained.model
    started = model.canonical_occupancy.binaries.clone()
    assert 0.05 < started.float().mean() < 0.4
    callbacks_before(trained, 0)
    assert torch.equal(model.canonical_occupancy.binaries, started), "not yet learned"
    union = model.union_grid.binaries.clone()
    assert 0.02 < union.float().mean() < 0.4, "but skinned into the poses"
    masks = []
    datamanager = trained.datamanager
    assert isinstance(datamanager, AvatarDataManager)
    with torch.no_grad():
        for step in range(8):
            rays, batch = datamanager.next_train(step)
            outputs = model(rays)
            masks.append((outputs["accumulation"] > 0)[batch["image"][:, 3:] > 0.5].float().mean())
    assert torch.stack(masks).mean() > 0.97, "rays through the person meet samples"
    # A field that is dense everywhere is seen as such once the occupancy is learned.
    with torch.no_grad():
        model.field.density_head.params.zero_()
    model.field.density = lambda points, noise=0.0: (torch.full_like(points[:, 0], 50.0), points)
    callbacks_before(trained, 500)
    assert model.canonical_occupancy.binaries.all() and model.union_grid.binaries.sum() > union.sum()


def test_single_pixels_are_refused_at_the_first_step(demo_subject: Path, vgg: Path) -> None:
    trained = pipeline(demo_subject, vgg, sampling="pixels")
    with pytest.raises(InputError, match="expected patches"):
        trained.get_train_loss_dict(0)
