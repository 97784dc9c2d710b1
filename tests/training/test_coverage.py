"""What the training views see of the person: found before training, kept, and told in evaluation."""

from __future__ import annotations

import math

import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.training.coverage import (
    coverage_image,
    observe_coverage,
    split_metrics,
    telling_seen_from_unseen,
    without_nan,
)
from tests.tiny import build, build_body, frame_store

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras


@pytest.fixture(scope="module")
def model(outputs: DataparserOutputs) -> InstantAvatarModel:
    """A model of the demo person, who turns once, that has looked at the frames of the front alone."""
    model = build_body(outputs)
    frames = frame_store(outputs)
    observe_coverage(model, frames.cameras[torch.tensor([0, 0, 0])])
    return model


def test_front_is_seen_in_the_first_frame(model: InstantAvatarModel) -> None:
    share, normals = model.unseen.share, model.unseen.normals
    assert share[normals[:, 2] > 0.8].mean() > 0.6
    assert share[normals[:, 2] < -0.5].max() == 0


def test_whole_turn_sees_nearly_everything(outputs: DataparserOutputs) -> None:
    model = build(outputs)
    observe_coverage(model, frame_store(outputs).cameras)
    assert (model.unseen.share > 0.05).float().mean() > 0.75
    assert not model.unseen.active
    before = model.unseen.share.clone()
    observe_coverage(model, frame_store(outputs).cameras[:1])
    assert torch.equal(model.unseen.share, before), "what a checkpoint holds is not found again"


def test_clip_of_the_front_is_told_and_has_a_loss(
    outputs: DataparserOutputs, capsys: pytest.CaptureFixture[str]
) -> None:
    model, frames = build(outputs), frame_store(outputs)
    observe_coverage(model, frames.cameras[torch.tensor([0, 0])])
    assert "% of the body" in " ".join(capsys.readouterr().out.split())
    model.train()
    rays, batch = frames.draw_rays(0, 64, 0)
    terms = model.get_loss_dict(model(rays), batch)
    assert terms["unseen_loss"] > 0


def test_metrics_tell_the_back_from_the_front(model: InstantAvatarModel, outputs: DataparserOutputs) -> None:
    cameras = frame_store(outputs).cameras
    back = len(cameras) // 2
    with telling_seen_from_unseen(model):
        shares = []
        for frame in (0, back):
            rendered = model.get_outputs_for_camera(cameras[frame : frame + 1])
            batch = {"image": torch.cat([rendered["rgb"], rendered["accumulation"]], dim=-1)}
            metrics, _ = model.get_image_metrics_and_images(rendered, batch)
            shares.append(metrics["unseen_share"])
    assert shares[0] < 0.3 and shares[1] > 0.6, shares
    assert "seen" not in model.get_outputs_for_camera(cameras[:1])


def test_view_is_colored_by_what_was_seen(model: InstantAvatarModel, outputs: DataparserOutputs) -> None:
    cameras = frame_store(outputs).cameras
    hues = []
    for frame in (0, len(cameras) // 2):
        camera, body = cameras[frame : frame + 1], model.poses.frame(frame)
        person = model.get_outputs_for_camera(camera)["accumulation"][..., 0] > 0.9
        red, green, _ = coverage_image(model, camera, body)[person].unbind(dim=-1)
        hues.append(float((red > 2 * green).float().mean()))
    assert hues[0] < 0.3 and hues[1] > 0.6, hues


def test_coverage_is_known_where_the_prior_is_switched_off(outputs: DataparserOutputs) -> None:
    model, frames = build(outputs, unseen_loss_mult=0.0), frame_store(outputs)
    observe_coverage(model, frames.cameras[torch.tensor([0, 0])])
    assert model.unseen.active
    model.refresh_occupancy(100)
    rays, batch = frames.draw_rays(0, 64, 0)
    assert "unseen_loss" not in model.train().get_loss_dict(model(rays), batch)


def test_errors_count_where_they_are(model: InstantAvatarModel) -> None:
    truth = torch.zeros(64, 64, 3)
    rendered, unseen = truth.clone(), torch.zeros(64, 64, 1, dtype=torch.bool)
    unseen[:, 32:] = True
    rendered[:, 32:] = 0.1
    metrics = split_metrics(rendered, truth, unseen, torch.ones_like(unseen), model)
    assert metrics["unseen_share"] == 0.5
    assert metrics["psnr_unseen"] == pytest.approx(20, abs=0.01) and metrics["psnr_seen"] > 90
    nothing = split_metrics(rendered, truth, torch.zeros_like(unseen), torch.ones_like(unseen), model)
    assert math.isnan(nothing["psnr_unseen"]) and nothing["psnr_seen"] == pytest.approx(23, abs=0.1)


def test_averages_are_of_the_images_that_have_a_figure() -> None:
    frames = [{"psnr": 30.0, "psnr_unseen": math.nan}, {"psnr": 32.0, "psnr_unseen": 20.0}]
    metrics = {"psnr": 31.0, "psnr_std": 1.0, "psnr_unseen": math.nan, "psnr_unseen_std": math.nan}
    without_nan(metrics, frames)
    assert metrics == {"psnr": 31.0, "psnr_std": 1.0, "psnr_unseen": 20.0, "psnr_unseen_std": 0.0}
    assert frames == [{"psnr": 30.0}, {"psnr": 32.0, "psnr_unseen": 20.0}]
