"""Fitting splats to images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.export.splats.cloud import Splats
from instantavatar_ns.export.splats.rasterizer import View, rasterize
from instantavatar_ns.utils.progress import shown_progress

# Adam's step sizes; that of the centers is a share of the splats' widths.
_RATES = {"log_scales": 0.01, "quaternions": 0.01, "opacity_logits": 0.03, "colors": 0.01}
_RATE_OF_CENTERS = 0.03
_LAST_RATE = 0.05  # by the first one
_ALPHA_WEIGHT = 0.5
# How strongly a splat keeps its first colour: as if each view showed this many more pixels, its own, in that colour.
# Adam's steps are as long for a splat of which the views show a hundredth of a pixel as for others: without this the
# noise in its gradients takes it to any colour, and from elsewhere it is a speck.
_HELD_PIXELS = 0.1
# Bounds of standard deviations, in seeds' widths: no splat covers the person, or is too small for the views to show.
_NARROWEST, _WIDEST = 0.1, 3.0


def fit(
    splats: Splats, views: Sequence[View], images: Float[Tensor, "views height width 4"], steps: int, seed: int = 0
) -> Splats:
    """Make splats look like images, by Adam on the squared error of one view a step.

    Args:
        splats: The start. Splats that the views hardly show keep its colours.
        views: The cameras, in the splats' world.
        images: Colour on white, and opacity, on the splats' device.
        steps: How many.
        seed: Of the views' order.

    Returns:
        The fitted splats, with colours from 0 to 1.
    """
    values = {name: value.detach().clone().requires_grad_() for name, value in splats.tensors().items()}
    fitted = Splats(**values)
    width = float(splats.log_scales.detach().amax(dim=1).exp().median())
    bounds = math.log(_NARROWEST * width), math.log(_WIDEST * width)
    rates = {"centers": _RATE_OF_CENTERS * width, **_RATES}
    groups = [{"params": [values[name]], "lr": rate} for name, rate in rates.items()]
    optimizer = torch.optim.Adam(groups, eps=1e-15, fused=True)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, _LAST_RATE ** (1 / max(steps, 1)))
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    with shown_progress("Fitting splats") as progress:
        for step in range(steps):
            order = order or torch.randperm(len(views), generator=generator).tolist()
            index = order.pop()
            color, alpha = rasterize(fitted, views[index])
            error = _on_white(color, alpha) - images[index, ..., :3]
            loss = error.square().mean() + _ALPHA_WEIGHT * (alpha - images[index, ..., 3]).square().mean()
            loss = loss + _HELD_PIXELS * (fitted.colors - splats.colors).square().sum() / error.numel()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
            with torch.no_grad():
                values["log_scales"].clamp_(*bounds)
            progress((step + 1) / steps)
    result = fitted.to(splats.centers.device)
    result.colors.clamp_(0, 1)
    return result


@torch.no_grad()
def psnr(splats: Splats, views: Sequence[View], images: Float[Tensor, "views height width 4"]) -> float:
    """Mean PSNR of the splats' images on white, decibels.

    Args:
        splats: In the views' world.
        views: The cameras.
        images: What they see: colour on white, and opacity.
    """
    errors = []
    for view, image in zip(views, images, strict=True):
        shown = _on_white(*rasterize(splats, view)).clamp(0, 1)
        errors.append((shown - image[..., :3]).square().mean())
    return float(-10 * torch.stack(errors).log10().mean())


def _on_white(color: Float[Tensor, "height width 3"], alpha: Float[Tensor, "height width"]) -> Tensor:
    return color + (1 - alpha[..., None])
