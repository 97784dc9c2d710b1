"""The canonical field by Triton kernels, differentiable with respect to its parameters and the points.

One autograd function from points to density and colour. Gradients are single precision between kernels, and within one
each point's has its own scale, so that half precision loses none and no loss scale has to be chosen.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from instantavatar_ns.field.hash_encoding import HashEncoding
from instantavatar_ns.field.hash_encoding_triton import encode, points_gradient, table_gradient
from instantavatar_ns.field.heads_triton import HeadOutputs, HeadParams, Precision, evaluate_heads, heads_gradient
from instantavatar_ns.field.mlp import MLP


def evaluate_field(
    modules: tuple[HashEncoding, MLP, MLP],
    points: Float[Tensor, "n 3"],
    *,
    with_color: bool,
    precision: Precision = "half",
    noise: Float[Tensor, "n"] | None = None,
    total: Int[Tensor, "1"] | None = None,
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n outputs"]]:
    """Density and colour, or density and the features from which colour follows.

    Args:
        modules: Encoding, density network, colour network.
        points: Points of the unit cube, at least one.
        with_color: Colour rather than features.
        precision: Half where that costs little accuracy, or single throughout.
        noise: Added to the raw density, before the ReLU.
        total: Number of filled rows, on the device; others give zeros and no gradient, and cost nothing.
    """
    params = [module.params for module in modules]
    slopes_kind = None
    if points.requires_grad and torch.is_grad_enabled():
        slopes_kind = torch.float16 if precision == "half" else torch.float32
    return _Field.apply(points.float().contiguous(), *params, noise, total, modules, with_color, precision, slopes_kind)


class _Field(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        points: Tensor,
        table: Tensor,
        density_params: Tensor,
        color_params: Tensor,
        noise: Tensor | None,
        total: Tensor | None,
        modules: tuple[HashEncoding, MLP, MLP],
        with_color: bool,
        precision: Precision,
        slopes_kind: torch.dtype | None,
    ) -> tuple[Tensor, Tensor | None]:
        encoding, density_head, _ = modules
        params = HeadParams(density_params, color_params, *density_head.shapes[0])
        encoded, slopes = encode(encoding, table, points, total=total, slopes_kind=slopes_kind)
        outputs = evaluate_heads(
            params, encoded, len(points), with_color=with_color, precision=precision, noise=noise, total=total
        )
        ctx.save_for_backward(points, encoded, slopes, outputs.density, outputs.color, *params[:2], total)
        ctx.modules, ctx.precision = modules, precision
        ctx.set_materialize_grads(False)
        return outputs.density, outputs.color if with_color else outputs.features

    @staticmethod
    @once_differentiable
    def backward(ctx, *output_grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        density_grad, second_grad = output_grads
        points, encoded, slopes, density, color, *params, total = ctx.saved_tensors
        encoding, density_head, _ = ctx.modules
        density_grad = torch.zeros_like(density) if density_grad is None else density_grad.contiguous()
        second_grad = None if second_grad is None else second_grad.contiguous()
        grads = heads_gradient(
            HeadParams(*params, *density_head.shapes[0]),
            encoded,
            HeadOutputs(density, color, None),
            HeadOutputs(density_grad, *((second_grad, None) if color is not None else (None, second_grad))),
            precision=ctx.precision,
            total=total,
        )
        points_grad = table_grad = None
        if ctx.needs_input_grad[0]:
            points_grad = points_gradient(encoding, grads.encoding, slopes, len(points), total)
        if ctx.needs_input_grad[1]:
            exact = ctx.precision == "float"
            table_grad = table_gradient(encoding, points, grads.encoding, exact=exact, total=total)
        return points_grad, table_grad, grads.density_params, grads.color_params, *[None] * 6
