"""The prior of pose corrections: near to where they began, and steady over time."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


class PriorConstants(NamedTuple):
    """Inputs that do not change in training; as the buffers of `PoseRefinement`.

    Attributes:
        basis: Share of each knot in each frame's correction.
        coordinates: In which the corrections are kept, a column each.
        start: Corrections to stay near to, radians and metres.
        bending: See `refinement.second_differences`.
        certainty: Factor of the weight of the distance from the start.
    """

    basis: Float[Tensor, "frames knots"]
    coordinates: Float[Tensor, "coordinates coordinates"]
    start: Float[Tensor, "frames vectors 3"]
    bending: Float[Tensor, "triples frames"]
    certainty: Float[Tensor, ""]


def pose_prior(
    knots: Float[Tensor, "knots coordinates"],
    remainders: Float[Tensor, "frames coordinates"],
    row: Int[Tensor, "1"],
    constants: PriorConstants,
    given_weight: float,
    bending_weight: float,
) -> Float[Tensor, ""]:
    """Penalise corrections; the gradient is that of one frame alone.

    It is written down, because autograd would go through the corrections of all frames for it.

    Args:
        knots: Of the spline.
        remainders: Of the frames.
        row: Index of the frame whose correction gets a gradient, on the device.
        constants: Where corrections began, and what holds them.
        given_weight: Of the frame's squared distance from the start, summed over radians and metres.
        bending_weight: Of the squared second derivatives of all corrections over time.
    """
    return cast(Tensor, _Prior.apply(knots, remainders, row, constants, given_weight, bending_weight))


class _Prior(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        knots: Tensor,
        remainders: Tensor,
        row: Tensor,
        constants: PriorConstants,
        given_weight: float,
        bending_weight: float,
    ) -> Tensor:
        basis, coordinates, start, bending, certainty = constants
        changes = torch.addmm(remainders, basis, knots) @ coordinates.T - start.flatten(1)
        unsteady, live = bending @ changes, changes.index_select(0, row)
        pull = given_weight * certainty * live
        slope = torch.addmm(pull, bending.index_select(1, row).T, unsteady, alpha=bending_weight)
        ctx.save_for_backward(2 * slope @ coordinates, basis, row)
        ctx.num_frames = len(remainders)
        return (pull * live).sum() + bending_weight * unsteady.square().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        slope, basis, row = ctx.saved_tensors
        slope = gradient * slope
        of_frame = slope.new_zeros(ctx.num_frames, slope.shape[1]).index_copy_(0, row, slope)
        return basis.index_select(0, row).T * slope, of_frame, None, None, None, None
