"""The model: poses, rendering, losses, on a small demo subject with a tiny field."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.model_components import renderers
from torch import Tensor

from instantavatar_ns import metrics as metrics_module
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.editing import MotionOptions
from instantavatar_ns.motion.motion import load_motion
from instantavatar_ns.rendering import packed
from instantavatar_ns.rendering.packed import is_densest_root
from tests.dependencies import interpreted_only
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
    assert model.motion is not None and len(model.motion) == NOVEL
    assert model.image_poses.resolve(torch.tensor([0.4]), None) == ("motion", 1)
    assert model.image_poses.resolve(torch.tensor([7.0]), None) == ("motion", NOVEL - 1)
    assert model.image_poses.resolve(torch.tensor([0.4]), {"pose_id": torch.tensor([2])}) == ("poses", 2)
    # It begins where the person stands in the first training frame.
    place = torch.linalg.inv(model.motion[0].world_to_root)[:3, 3]
    torch.testing.assert_close(place, torch.linalg.inv(model.poses[0].world_to_root)[:3, 3], atol=0.05, rtol=0)


def test_motion_is_resampled_and_taken_as_it_is_when_asked(outputs: DataparserOutputs, demo_subject: Path) -> None:
    motion = demo_subject / "novel" / "poses.npz"
    double = MotionOptions(place="dataset", fps=2 * load_motion(motion).fps)
    as_given = build(outputs, motion=motion, motion_options=double).motion
    novel = parse(demo_subject, "test", eval_set="novel")
    rows = novel.cameras.metadata["pose_id"].flatten()  # pyright: ignore
    expected = build(novel).poses
    assert as_given is not None and len(as_given) == 2 * NOVEL - 1
    torch.testing.assert_close(as_given.bone_transforms[::2], expected.bone_transforms[rows], atol=1e-4, rtol=0)


def test_rest_pose_is_canonical_and_stands_where_the_first_frame_does(model: InstantAvatarModel) -> None:
    torch.testing.assert_close(model.rest_pose[0].bone_transforms, torch.eye(4).expand(24, 4, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.rest_pose[0].world_to_root, model.poses[0].world_to_root, atol=1e-5, rtol=0)


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
    world_to_root = body_model.poses[int(camera.metadata["pose_id"])].world_to_root
    root = torch.linalg.inv(world_to_root)[:3, 3]
    distance = (camera.camera_to_worlds[0, :, 3] - root).norm()
    assert depth[shown].median().item() == pytest.approx(distance.item(), abs=0.3)
    assert depth[~shown].median() >= depth[shown].median()


def test_chunks_do_not_change_the_image(
    body_model: InstantAvatarModel, heldout: DataparserOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera, _ = camera_and_mask(heldout, 0)
    whole = body_model.get_outputs_for_camera(camera)
    monkeypatch.setattr(body_model.config, "eval_num_rays_per_chunk", 1000)
    parts = body_model.get_outputs_for_camera(camera)
    torch.testing.assert_close(parts["rgb"], whole["rgb"])


@pytest.fixture
def triton_model(body_model: InstantAvatarModel, monkeypatch: pytest.MonkeyPatch) -> InstantAvatarModel:
    """The same avatar, with Triton's kernels but for the search, for which the interpreter takes long."""
    monkeypatch.setattr(body_model, "renderer", "triton")
    return body_model


def small_camera(heldout: DataparserOutputs) -> Cameras:
    camera = heldout.cameras[1:2]
    camera.rescale_output_resolution(0.25)
    return camera


def no_rays(*_: object, **__: object) -> None:
    raise AssertionError("nerfstudio's generator is slow")


@interpreted_only
def test_whole_image_by_kernels_is_that_of_torch(
    body_model: InstantAvatarModel, heldout: DataparserOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = small_camera(heldout)
    theirs = body_model.get_outputs_for_camera(camera)
    monkeypatch.setattr(body_model, "renderer", "triton")
    monkeypatch.setattr(Cameras, "generate_rays", no_rays)
    ours = body_model.get_outputs_for_camera(camera)
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    assert (ours["accumulation"] > 0.99).sum() > 20 and (ours["accumulation"] == 0).sum() > 200
    # A sample on the border of a cell may be counted to either.
    for key in ours:
        differ = (ours[key] - theirs[key]).abs().amax(dim=-1) > 1e-3
        assert differ.float().mean() < 0.01, key


@interpreted_only
def test_recorded_image_is_that_of_the_renderer(
    triton_model: InstantAvatarModel, heldout: DataparserOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera, blue = small_camera(heldout), torch.tensor([0.1, 0.2, 0.9])
    theirs = triton_model.get_outputs_for_camera(camera)
    triton_model.image_poses.forget()
    monkeypatch.setattr(InstantAvatarModel, "supports_cuda_graphs", True)
    monkeypatch.setattr(triton_model, "render", no_rays)
    images = [triton_model.get_outputs_for_camera(camera)]
    with renderers.background_color_override_context(blue):
        images.append(triton_model.get_outputs_for_camera(camera))
    assert not triton_model.image_poses._prepared, "recordings prepare poses themselves"
    for key, value in theirs.items():
        torch.testing.assert_close(images[0][key], value, atol=1e-5, rtol=1e-5)
    expected = theirs["rgb"] + (blue - 1) * (1 - theirs["accumulation"])
    torch.testing.assert_close(images[1]["rgb"], expected, atol=1e-5, rtol=0)


@interpreted_only
@pytest.mark.parametrize(
    "changes",
    [{"camera_type": CameraType.FISHEYE}, {"distortion_params": torch.tensor([[0.2, 0.0, 0.0, 0.0, 0.05, 0.0]])}],
)
def test_other_cameras_have_nerfstudios_rays(
    triton_model: InstantAvatarModel, heldout: DataparserOutputs, monkeypatch: pytest.MonkeyPatch, changes: dict
) -> None:
    pinhole = small_camera(heldout)
    names = ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "metadata")
    camera = Cameras(**({name: getattr(pinhole, name) for name in names} | changes))
    ours = triton_model.get_outputs_for_camera(camera)
    monkeypatch.setattr(triton_model, "renderer", "torch")
    theirs = triton_model.get_outputs_for_camera(camera)
    undistorted = triton_model.get_outputs_for_camera(pinhole)
    torch.testing.assert_close(ours["rgb"], theirs["rgb"], atol=1e-3, rtol=0)
    assert (ours["accumulation"] - undistorted["accumulation"]).abs().max() > 0.5, "the camera matters"


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


def test_poses_are_prepared_anew_after_a_training_step(body_model: InstantAvatarModel) -> None:
    first = body_model.image_poses.prepared("poses", 0)
    assert body_model.image_poses.prepared("poses", 0) is first
    callbacks = body_model.get_training_callbacks(TrainingCallbackAttributes(None, None, None, None))  # pyright: ignore
    for callback in callbacks:
        callback.run_callback_at_location(0, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
    assert body_model.image_poses.prepared("poses", 0) is not first


def test_interrupted_rendering_leaves_no_pose_behind(
    body_model: InstantAvatarModel, heldout: DataparserOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(body_model, "render", interrupt)
        with pytest.raises(KeyboardInterrupt):
            body_model.get_outputs_for_camera(heldout.cameras[0:1])
    assert body_model._current is None


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
    with body_model.logging_image_metrics() as frames:
        metrics, images = body_model.get_image_metrics_and_images(result, {"image": image})
        body_model.get_image_metrics_and_images(result, {"image": image})
    assert frames == [{"psnr": 20.0}] * 2 and metrics == {"psnr": 20.0}
    assert images["img"].shape == (16, 32, 3) and images["depth"].shape == images["accumulation"].shape == (16, 16, 3)
    body_model.get_image_metrics_and_images(result, {"image": image})
    assert len(frames) == 2
