"""Points on rays in root space, by one Triton kernel forward and one backward; twin of `inputs.Rays.points`.

In torch the points of a step are gathered, moved and turned in nine launches. Their gradient with respect to the pose,
a product of two matrices of a million rows, has only nine numbers: libraries have no good kernel for it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from instantavatar_ns.kernels.launch import cdiv, launch
from instantavatar_ns.kernels.ray_points import ray_points_backward_kernel, ray_points_kernel
from instantavatar_ns.kernels.usable import interpreting
from instantavatar_ns.rendering.march import SampleBuffer

_BLOCK = 256
_BACKWARD_PROGRAMS = 264  # two on each multiprocessor of the largest GPUs; each ends with twelve additions
_INTERPRETED_BLOCK = 1 << 12  # the interpreter's time goes by operations, not by their size


def sample_points_triton(
    origins: Float[Tensor, "#rays 3"],
    directions: Float[Tensor, "rays 3"],
    samples: SampleBuffer,
    world_to_root: Float[Tensor, "4 4"],
    step: float,
) -> Float[Tensor, "capacity 3"]:
    """Middles of samples in root space, metres; differentiable with respect to `world_to_root`.

    Args:
        origins: Where the rays start, metres, in the world; one row where all start together.
        directions: Unit vectors in the world.
        samples: Where the samples are on the rays. Rows beyond their number stay unwritten.
        world_to_root: From the world to the root space of the pose.
        step: Length of a sample, metres.
    """
    return cast(Tensor, _Points.apply(world_to_root, origins.contiguous(), directions.contiguous(), samples, step))


class _Points(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, world_to_root: Tensor, origins: Tensor, directions: Tensor, samples: SampleBuffer, step: float
    ) -> Tensor:
        capacity, block = len(samples.t_starts), _block()
        points = directions.new_empty(capacity, 3)
        inputs = (origins, directions, samples.ray_indices, samples.t_starts, samples.total)
        numbers = (0.5 * step, 0 if len(origins) == 1 else 3, capacity)
        grid = (cdiv(capacity, block),)
        launch(ray_points_kernel, grid, *inputs, world_to_root.contiguous(), points, *numbers, BLOCK=block)
        ctx.save_for_backward(*inputs)
        ctx.numbers = numbers
        return points

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, points_grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient, block = points_grad.new_zeros(4, 4), _block()
        grid = (min(cdiv(len(points_grad), block), _BACKWARD_PROGRAMS),)
        inputs = (*ctx.saved_tensors, points_grad.contiguous(), gradient)
        launch(ray_points_backward_kernel, grid, *inputs, *ctx.numbers, BLOCK=block)
        return gradient, None, None, None, None


def _block() -> int:
    return _INTERPRETED_BLOCK if interpreting() else _BLOCK
