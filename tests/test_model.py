"""The model: poses, rendering, losses, on a small demo subject with a tiny field."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from torch import Tensor

from instantavatar_ns import metrics as metrics_module
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.subject import subject_of
from instantavatar_ns.metrics import noting_image_metrics
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.editing import MotionOptions
from instantavatar_ns.motion.motion import load_motion
from instantavatar_ns.rendering import packed
from instantavatar_ns.rendering.packed import is_densest_root
from instantavatar_ns.utils.errors import InputError
from tests.tiny import COLOR, TINY, build, build_body, frame_store, parse

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras

NOVEL = 4


@pytest.fixture(scope="module")
def heldout(demo_subject: Path) -> DataparserOutputs:
    return parse(demo_subject, "test")


@pytest.fixture(scope="module")
def model(outputs: DataparserOutputs) -> InstantAvatarModel:
    return build(outputs)


@pytest.fixture(scope="module")
def body_model(outputs: DataparserOutputs) -> InstantAvatarModel:
    """A model in evaluation whose field is the body itself, its occupancy up to date."""
    return build_body(outputs)


def camera_and_mask(outputs: DataparserOutputs, index: int) -> tuple[Cameras, Tensor]:
    """A camera of half the resolution, and the mask of the person in its image."""
    camera = outputs.cameras[index : index + 1]
    camera.rescale_output_resolution(0.5)
    mask = torch.from_numpy(AvatarDataset(outputs).get_numpy_image(index)[..., 3])
    return camera, mask.view(48, 2, 48, 2).float().mean(dim=(1, 3)) > 127


# Poses


def test_time_plays_a_motion_where_one_is_set(outputs: DataparserOutputs, demo_subject: Path) -> None:
    model = build(outputs, motion=demo_subject / "novel" / "poses.npz")
    assert model.poses.motion is not None and len(model.poses.motion) == NOVEL
    assert model.poses.seen_by(torch.tensor([0.4]), None) is model.poses.motion_frame(1)
    # It begins where the person stands in the first training frame.
    place, stand = (
        torch.linalg.inv(pose.world_to_root)[:3, 3] for pose in (model.poses.motion_frame(0), model.poses.frame(0))
    )
    torch.testing.assert_close(place, stand, atol=0.05, rtol=0)


def test_motion_is_resampled_and_taken_as_it_is_when_asked(outputs: DataparserOutputs, demo_subject: Path) -> None:
    motion = demo_subject / "novel" / "poses.npz"
    double = MotionOptions(place="dataset", fps=2 * load_motion(motion).fps)
    as_given = build(outputs, motion=motion, motion_options=double).poses.motion_poses
    novel = parse(demo_subject, "test", eval_set="novel")
    rows = novel.cameras.metadata["pose_id"].flatten()  # pyright: ignore
    expected = build(novel).poses.posed(subject_of(novel.metadata).poses)
    assert as_given is not None and len(as_given) == 2 * NOVEL - 1
    torch.testing.assert_close(as_given.bone_transforms[::2], expected.bone_transforms[rows], atol=1e-4, rtol=0)


# Training


@pytest.mark.parametrize("step", [0, 600])
def test_training_step_gives_finite_losses_and_gradients_to_the_whole_field(
    model: InstantAvatarModel, outputs: DataparserOutputs, step: int
) -> None:
    frames = frame_store(outputs, patch_size=16)
    rays, batch = frames.draw_rays(2, 256, step)
    model.train()
    model.update_to_step(step)
    result = model(rays)
    assert result["rgb"].shape == (256, 3) and result["accumulation"].shape == result["depth"].shape == (256, 1)
    metrics = model.get_metrics_dict(result, batch)
    loss_dict = model.get_loss_dict(result, batch, metrics)
    expected = {"rgb_loss", "mask_loss", "hard_surface_loss", "occupancy_loss", "pose_prior"}
    assert set(loss_dict) == expected | ({"empty_loss"} if step < model.config.empty_steps else set())
    assert all(torch.isfinite(loss) for loss in loss_dict.values())
    assert metrics["samples_per_ray"] > 1 and 0 < metrics["psnr"] < 40
    sum(loss_dict.values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    trained = {parameter for group in model.get_param_groups().values() for parameter in group}
    # nerfstudio's own parameter, which tells of the device, is empty.
    assert trained == {parameter for parameter in model.parameters() if parameter.numel()}, "nothing is left out"
    for name, parameter in model.field.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.count_nonzero() > 0.01 * parameter.numel(), name


def test_losses_of_known_outputs(model: InstantAvatarModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.train()
    monkeypatch.setattr(model.config, "background_color", "white")
    monkeypatch.setattr(model, "step", 10_000)
    image = torch.tensor([[0.2, 0.4, 0.6, 1.0], [0.0, 0.0, 0.0, 0.0]])
    result = {
        "rgb": torch.tensor([[0.2, 0.4, 0.3], [1.0, 1.0, 0.9]]),
        "accumulation": torch.tensor([[1.0], [0.5]]),
        "sample_weights": torch.tensor([1.0, 0.5, 0.0]),
        "num_samples": torch.tensor([3]),
        "space_opacity": torch.tensor([0.4, 0.8]),
        "space_is_free": torch.tensor([True, False]),
    }
    loss = model.get_loss_dict(result, {"image": image})
    assert loss["rgb_loss"].item() == pytest.approx((0.3**2 + 0.1**2) / 6, abs=1e-6)
    assert loss["mask_loss"].item() == pytest.approx(0.1 * 0.125)
    assert loss["hard_surface_loss"].item() == pytest.approx(0.1 * 0.120114 * (1 / 2 + 1 / 3), abs=1e-5)
    assert loss["occupancy_loss"].item() == pytest.approx(0.2)
    model.step = 0
    assert model.get_loss_dict(result, {"image": image})["empty_loss"].item() == pytest.approx(0.025 * 0.6)
    model.eval()
    assert set(model.get_loss_dict(result, {"image": image})) == {"rgb_loss", "mask_loss"}


def test_schedules_follow_the_step(model: InstantAvatarModel, monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks = model.get_training_callbacks(TrainingCallbackAttributes(None, None, None, None))  # pyright: ignore
    refreshed = []
    monkeypatch.setattr(model.canonical_occupancy, "refresh", lambda density: refreshed.append(model.step))
    monkeypatch.setattr(model.union_grid, "refresh", lambda *_: None)
    for step in (*range(130), 999, 1000):
        for callback in callbacks:
            callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        assert model.step == step
        assert model.density_noise == (1.0 if step < 1000 else 0.0)
    assert refreshed == [60, 80, 100, 120, 1000]


# Rendering


def test_image_shows_the_body_where_the_mask_is(body_model: InstantAvatarModel, heldout: DataparserOutputs) -> None:
    camera, mask = camera_and_mask(heldout, 1)
    image = body_model.get_outputs_for_camera(camera)
    assert {key: value.shape for key, value in image.items()} == {
        "rgb": (48, 48, 3),
        "accumulation": (48, 48, 1),
        "depth": (48, 48, 1),
    }
    shown = image["accumulation"][..., 0] > 0.5
    union = (shown | mask).sum()
    assert (shown & mask).sum() > 0.75 * union, "but for clothes, hair and the errors of the poses"
    opaque = image["accumulation"][..., 0] > 0.999
    assert opaque.sum() > 0.4 * mask.sum()
    torch.testing.assert_close(
        image["rgb"][opaque], torch.tensor(COLOR).expand(int(opaque.sum()), 3), atol=2e-3, rtol=0
    )
    empty = image["accumulation"][..., 0] == 0
    assert empty.sum() > 0.5 * 48 * 48 and (image["rgb"][empty] == 1).all(), "a white background"


def test_depth_is_the_distance_to_the_body(body_model: InstantAvatarModel, heldout: DataparserOutputs) -> None:
    camera, shown = camera_and_mask(heldout, 0)
    depth = body_model.get_outputs_for_camera(camera)["depth"][..., 0]
    assert camera.metadata is not None
    world_to_root = body_model.poses.frame(int(camera.metadata["pose_id"])).world_to_root
    root = torch.linalg.inv(world_to_root)[:3, 3]
    distance = (camera.camera_to_worlds[0, :, 3] - root).norm()
    assert depth[shown].median().item() == pytest.approx(distance.item(), abs=0.3)
    assert depth[~shown].median() >= depth[shown].median()


def test_camera_that_sees_nobody_gives_white(body_model: InstantAvatarModel, heldout: DataparserOutputs) -> None:
    away = Cameras(
        camera_to_worlds=heldout.cameras.camera_to_worlds[0] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0])),
        fx=100.0,
        fy=100.0,
        cx=16.0,
        cy=16.0,
        width=32,
        height=32,
    )
    image = body_model.get_outputs_for_camera(away)
    assert (image["rgb"] == 1).all() and not image["accumulation"].any() and image["depth"].isfinite().all()


@pytest.mark.parametrize(("alpha", "most"), [(0.009, 0.0), (0.011, 1.0), (0.8, 1 - 5e-5)])
def test_thin_and_hidden_samples_are_left_out(
    body_model: InstantAvatarModel,
    heldout: DataparserOutputs,
    monkeypatch: pytest.MonkeyPatch,
    alpha: float,
    most: float,
) -> None:
    """An opacity under 0.01 counts as none, and what lies behind a transmittance of 1e-4 as hidden."""
    density = -math.log(1 - alpha) / TINY.step_size
    monkeypatch.setattr(
        packed, "shade", lambda points, *_: (torch.full_like(points[:, 0], density), torch.ones_like(points))
    )
    camera, mask = camera_and_mask(heldout, 1)
    inside = body_model.get_outputs_for_camera(camera)["accumulation"][..., 0][mask]
    assert inside.max() <= most and inside.max() >= 0.2 * most


def test_poses_are_made_and_prepared_anew_after_a_training_step(body_model: InstantAvatarModel) -> None:
    first = body_model.renderer.prepared(body_model.poses.frame(0))
    assert body_model.renderer.prepared(body_model.poses.frame(0)) is first
    callbacks = body_model.get_training_callbacks(TrainingCallbackAttributes(None, None, None, None))  # pyright: ignore
    for callback in callbacks:
        callback.run_callback_at_location(0, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
    assert not body_model.renderer._prepared
    assert body_model.renderer.prepared(body_model.poses.frame(0)) is not first


def test_data_of_another_format_is_refused(outputs: DataparserOutputs) -> None:
    with pytest.raises(InputError, match=r"the data parser: .*found depth.*instant-avatar-data"):
        TINY.setup(scene_box=outputs.scene_box, num_train_data=1, metadata={"depth": 1}, device="cpu")


def test_densest_root_decides(body_model: InstantAvatarModel) -> None:
    """Where an arm touches the chest a point has two roots; the empty one must not dim the other."""
    density = torch.tensor([1.0, 3.0, 2.0, 5.0, 5.0, 0.0])
    point = torch.tensor([0, 0, 0, 2, 2, 3])
    assert is_densest_root(density, point, 5).tolist() == [False, True, False, False, True, True]
    assert is_densest_root(density[:0], point[:0], 5).tolist() == []


def test_state_of_one_model_gives_another_the_same_image(
    outputs: DataparserOutputs, heldout: DataparserOutputs
) -> None:
    first, second = build(outputs).eval(), build(outputs).eval()
    with torch.no_grad():
        first.field.encoding.params.normal_()
        first.field.density_head.params.mul_(50)
    first.refresh_occupancy(100)
    second.load_state_dict(first.state_dict())
    camera, _ = camera_and_mask(heldout, 0)
    images = [one.get_outputs_for_camera(camera)["rgb"] for one in (first, second)]
    assert images[0].min() < 0.9, "something is shown"
    assert torch.equal(*images)


def test_image_metrics_are_collected_while_asked_for(
    body_model: InstantAvatarModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "image_metrics", lambda *_: {"psnr": 20.0})
    image = torch.rand(16, 16, 4)
    result = {"rgb": image[..., :3], "accumulation": image[..., 3:], "depth": image[..., 3:]}
    with noting_image_metrics(body_model) as frames:
        metrics, images = body_model.get_image_metrics_and_images(result, {"image": image})
        body_model.get_image_metrics_and_images(result, {"image": image})
    assert frames == [{"psnr": 20.0}] * 2 and metrics == {"psnr": 20.0}
    assert images["img"].shape == (16, 32, 3) and images["depth"].shape == images["accumulation"].shape == (16, 16, 3)
    body_model.get_image_metrics_and_images(result, {"image": image})
    assert len(frames) == 2
