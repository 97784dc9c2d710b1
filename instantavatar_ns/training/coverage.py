"""Coverage of a model's person by the training views: found before its first step, told when it is evaluated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean, pstdev
from typing import Any

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from instantavatar_ns.backgrounds import blend, image_background
from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.metrics import image_metrics
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.unseen.coverage import Views, view_coverage
from instantavatar_ns.unseen.shown import CoverageField, SeenField
from instantavatar_ns.utils.replaced import replaced

_HARDLY_ANY = 50  # pixels: of fewer there is no figure


@torch.no_grad()
def observe_coverage(model: InstantAvatarModel, cameras: Cameras) -> None:
    """Let a model's prior of unseen parts know what the training frames show of the body, in their aligned poses.

    Args:
        model: One whose checkpoint holds the coverage stays as it is.
        cameras: Of the training frames, on the model's device.
    """
    prior = model.unseen
    if prior.has_observed:
        return
    assert cameras.metadata is not None
    bodies = [model.poses.frame(row) for row in cameras.metadata["pose_id"].flatten().tolist()]
    last_row = cameras.camera_to_worlds.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(bodies), 1, 4)
    camera_to_world = torch.cat([cameras.camera_to_worlds, last_row], dim=1)
    views = Views(
        torch.stack([body.world_to_root for body in bodies]) @ camera_to_world,
        focal=torch.cat([cameras.fx, cameras.fy], dim=1),
        center=torch.cat([cameras.cx, cameras.cy], dim=1),
        width=int(cameras.width[0]),
        height=int(cameras.height[0]),
    )
    weights = model.poses.body.skinning_weights.to(prior.vertices)
    bones = torch.stack([body.bone_transforms for body in bodies])
    prior.observe(view_coverage(prior.vertices, prior.normals, weights, bones, views))
    if prior.active and model.config.unseen_loss_mult:
        CONSOLE.print(
            f"No training view shows {100 * prior.unseen_share:.0f} % of the body: thickness and colours are carried "
            "on to there from what is seen (--pipeline.model.unseen-loss-mult 0 leaves it to chance)"
        )


@contextmanager
def telling_seen_from_unseen(model: InstantAvatarModel) -> Iterator[None]:
    """Let the metrics of each image that is evaluated meanwhile tell apart what the training views saw and what not.

    Beside the others there are `unseen_share`, of the person's pixels, and `psnr_seen`, `psnr_unseen`, `lpips_seen` and
    `lpips_unseen`, as `split_metrics` has them; nothing where little is unseen.

    Args:
        model: Evaluates the images.
    """
    prior = model.unseen
    if not prior.active:
        yield
        return
    renderer, rays_per_chunk = (
        model.renderer.with_field(SeenField(prior, model.field)),
        model.config.eval_num_rays_per_chunk,
    )
    render, evaluate = model.get_outputs_for_camera, model.get_image_metrics_and_images

    def render_and_tell(camera: Cameras, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        body = model.poses.seen_by(camera.times, camera.metadata)
        black = torch.zeros(3, device=model.device)
        seen = renderer.render_image(camera, body, black, rays_per_chunk=rays_per_chunk)["rgb"]
        return render(camera, *args, **kwargs) | {"seen": seen[..., :1].to(camera.device)}

    def evaluate_both(outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> tuple[dict, dict]:
        metrics, images = evaluate(outputs, batch)
        image = batch["image"].to(model.device)
        truth = blend(image, 1.0) if image.shape[-1] == 4 else image
        outputs = {name: outputs[name].to(model.device) for name in ("rgb", "accumulation", "seen")}
        unseen = outputs["accumulation"] - outputs["seen"] > 0.5
        person = (outputs["accumulation"] > 0.5) | (truth < 1).any(dim=-1, keepdim=True)
        return metrics | split_metrics(outputs["rgb"], truth, unseen, person, model), images

    with (
        replaced(model, "get_outputs_for_camera", render_and_tell),
        replaced(model, "get_image_metrics_and_images", evaluate_both),
    ):
        yield


def split_metrics(
    rendered: Float[Tensor, "height width 3"],
    truth: Float[Tensor, "height width 3"],
    unseen: Bool[Tensor, "height width 1"],
    person: Bool[Tensor, "height width 1"],
    model: InstantAvatarModel,
) -> dict[str, float]:
    """Metrics of the person's seen and unseen pixels apart.

    PSNR is of these pixels alone. LPIPS is of the whole image, the other part taken from the truth. Figures of a part
    that is not in the image are NaN.

    Args:
        rendered: The model's image.
        truth: The photograph on white.
        unseen: Pixels that show what no training view saw.
        person: Pixels that show the person, rendered or true.
        model: Knows LPIPS' weights.
    """
    result = {"unseen_share": float((unseen & person).sum() / person.sum().clamp(min=1))}
    for name, part in (("seen", person & ~unseen), ("unseen", person & unseen)):
        metrics = image_metrics(torch.where(part, rendered, truth), truth, model.config.lpips_backbone)
        error = ((rendered - truth).square() * part).sum() / (3 * part.sum())
        values = {f"psnr_{name}": float(-10 * error.clamp(min=1e-10).log10())}
        if "lpips" in metrics:
            values[f"lpips_{name}"] = metrics["lpips"]
        result.update(values if int(part.sum()) >= _HARDLY_ANY else dict.fromkeys(values, math.nan))
    return result


def without_nan(metrics: dict[str, Any], frames: list[dict[str, float]]) -> None:
    """Average each metric over the images that have it, and leave it out where there is none, in place.

    Args:
        metrics: nerfstudio's averages, `<metric>` and `<metric>_std`.
        frames: Metrics of each image, some NaN.
    """
    for name in {name for values in frames for name, value in values.items() if math.isnan(value)}:
        known = [values[name] for values in frames if not math.isnan(values[name])]
        for values in frames:
            if math.isnan(values[name]):
                del values[name]
        metrics.pop(name, None)
        metrics.pop(f"{name}_std", None)
        if known:
            metrics[name], metrics[f"{name}_std"] = fmean(known), pstdev(known)


def coverage_image(model: InstantAvatarModel, camera: Cameras, body: PosedBody) -> Float[Tensor, "height width 3"]:
    """Colour a view by what the training views saw: red nothing, yellow one side, green many (`CoverageField`).

    Args:
        model: A trained model.
        camera: One camera.
        body: The pose that it sees.

    Raises:
        InputError: See `UnseenPrior.require_coverage`.
    """
    model.unseen.require_coverage()
    renderer = model.renderer.with_field(CoverageField(model.unseen, model.field))
    background, rays = image_background(model.device), model.config.eval_num_rays_per_chunk
    return renderer.render_image(camera, body, background, rays_per_chunk=rays)["rgb"]
