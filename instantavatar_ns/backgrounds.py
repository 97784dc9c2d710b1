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
    """Put an image with opacity in front of a background.

    Args:
        image: Straight colours and opacity, 0 to 1.
        background: Colours, 0 to 1, or one grey value for all pixels.

    Returns:
        Colours, 0 to 1.
    """
    return image[..., :3] * image[..., 3:] + background * (1 - image[..., 3:])


def unblend_white(
    rgb: Float[Tensor, "*pixels 3"], accumulation: Float[Tensor, "*pixels 1"]
) -> Float[Tensor, "*pixels 4"]:
    """Recover straight colours and opacity from colours that were blended on white.

    Args:
        rgb: Colours on white, 0 to 1.
        accumulation: Opacity, 0 to 1.

    Returns:
        Colours and opacity, 0 to 1; colours are white where the opacity is 0.
    """
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
