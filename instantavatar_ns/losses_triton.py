"""Loss terms of a training step by one Triton kernel forward and one backward; twin of those of `losses`.

In torch they are a hundred launches, a third of which go through buffers for samples that are mostly empty.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from instantavatar_ns.kernels.launch import launch
from instantavatar_ns.kernels.ray_losses import ray_losses_backward_kernel, ray_losses_kernel
from instantavatar_ns.kernels.usable import interpreting

_BLOCK = 1024
_PROGRAMS = 128
_INTERPRETED_PROGRAMS = 2  # the interpreter's time goes by programs


class LossWeights(NamedTuple):
    """Weights of the terms, each that of a mean; without an effect at 0."""

    color: float
    mask: float
    surface: float
    free: float
    empty: float


class StepPixels(NamedTuple):
    """Pixels that the loss terms compare.

    Attributes:
        rgb: Rendered colors, in front of black where the background is drawn, otherwise of it.
        accumulation: Opacity.
        image: True colors and opacity.
        background: Color behind the person: drawn for each ray, or one for all.
    """

    rgb: Float[Tensor, "rays 3"]
    accumulation: Float[Tensor, "rays 1"]
    image: Float[Tensor, "rays 4"]
    background: Float[Tensor, "rays 3"] | float


class StepSamples(NamedTuple):
    """Samples of the field that the loss terms drive towards 0 or 1.

    Attributes:
        weights: Shares of the samples in their pixels.
        num_samples: How many there are; rows from there on are not looked at.
        opacity: At random points in space.
        is_free: Marks the points outside the occupied cells.
    """

    weights: Float[Tensor, "samples"]
    num_samples: Int[Tensor, "1"]
    opacity: Float[Tensor, "points"]
    is_free: Bool[Tensor, "points"]


def step_losses_triton(pixels: StepPixels, samples: StepSamples, weights: LossWeights) -> tuple[Tensor, ...]:
    """Return the terms of color, mask, hard surface, free space and any space, with their weights.

    Differentiable with respect to rendered colors, opacities and the samples' weights.

    Args:
        pixels: Rays.
        samples: Samples, and random points.
        weights: Of the terms.
    """
    result: Any = _StepLosses.apply(*pixels, *samples, weights)
    return result


class _StepLosses(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        rgb: Tensor,
        accumulation: Tensor,
        image: Tensor,
        background: Tensor | float,
        sample_weights: Tensor,
        num_samples: Tensor,
        opacity: Tensor,
        is_free: Tensor,
        weights: LossWeights,
    ) -> tuple[Tensor, ...]:
        is_drawn = isinstance(background, Tensor)
        inputs = (
            rgb.contiguous(),
            accumulation.contiguous(),
            image.contiguous(),
            background.contiguous() if is_drawn else None,
            sample_weights.contiguous(),
            num_samples,
            opacity.contiguous(),
            is_free.contiguous().view(torch.uint8),
        )
        numbers = (0.0 if is_drawn else float(background), *map(float, weights))  # pyright: ignore[reportArgumentType]
        sizes = (len(rgb), len(sample_weights), len(opacity))
        partial = rgb.new_empty(_programs(), 5)
        launch(ray_losses_kernel, (_programs(),), *inputs, partial, *numbers, *sizes, BLOCK=_BLOCK)
        ctx.save_for_backward(*inputs)
        ctx.numbers, ctx.sizes = numbers, sizes
        return partial.sum(dim=0).unbind()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rgb, accumulation, _, _, weights, _, opacity, _ = ctx.saved_tensors
        outputs = tuple(map(torch.empty_like, (rgb, accumulation, weights, opacity)))
        arguments = (*ctx.saved_tensors, *gradients, *outputs, *ctx.numbers, *ctx.sizes)
        launch(ray_losses_backward_kernel, (_programs(),), *arguments, BLOCK=_BLOCK)
        of_rgb, of_accumulation, of_weights, of_opacity = outputs
        return of_rgb, of_accumulation, None, None, of_weights, None, of_opacity, None, None


def _programs() -> int:
    return _INTERPRETED_PROGRAMS if interpreting() else _PROGRAMS
