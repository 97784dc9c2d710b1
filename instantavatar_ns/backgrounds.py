"""Colours behind the person, in training and in images."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from nerfstudio.model_components import renderers
from torch import Tensor

Background = Literal["random", "white", "black"]
# Numbers, not nerfstudio's colours, which lie on the CPU. None is drawn where colours are compared.
TRAINING_BACKGROUNDS: dict[Background, float | None] = {"random": None, "white": 1.0, "black": 0.0}


def image_background(device: torch.device) -> Float[Tensor, "3"]:
    """Colour behind the person in images: white, or what nerfstudio's viewer asks for."""
    color = renderers.BACKGROUND_COLOR_OVERRIDE
    return torch.ones(3, device=device) if color is None else color.to(device)


def blend(
    image: Float[Tensor, "*pixels 4"], background: Float[Tensor, "*pixels 3"] | float
) -> Float[Tensor, "*pixels 3"]:
    """Colours of an image with opacity, on a background."""
    return image[..., :3] * image[..., 3:] + background * (1 - image[..., 3:])


def unblend_white(
    rgb: Float[Tensor, "*pixels 3"], accumulation: Float[Tensor, "*pixels 1"]
) -> Float[Tensor, "*pixels 4"]:
    """Colours that were blended on white without it, and their opacity; white where there is nothing."""
    # rgb = accumulation * colour + (1 - accumulation)
    color = 1 - (1 - rgb) / accumulation.clamp_min(1e-6)
    return torch.cat([color.clamp(0, 1), accumulation], dim=-1)


def on_same_background(
    rgb: Float[Tensor, "rays 3"],
    accumulation: Float[Tensor, "rays 1"],
    image: Float[Tensor, "rays 4"],
    background: float | None,
) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
    """Rendered and true colours, to be compared.

    Args:
        rgb: Rendered colours on the background, on black where there is none.
        accumulation: Their opacity.
        image: True colours and opacity.
        background: Colour behind the person; None for a random one per pixel, behind which nothing can hide.
    """
    if background is not None:
        return rgb, blend(image, background)
    drawn = torch.rand_like(rgb)
    return rgb + drawn * (1 - accumulation), blend(image, drawn)
