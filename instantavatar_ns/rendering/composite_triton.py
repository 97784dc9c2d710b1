"""Pixels from samples in buffers of a fixed size, by one Triton kernel forward and one backward."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from instantavatar_ns.kernels.composite import composite_backward_kernel, composite_kernel
from instantavatar_ns.kernels.launch import launch
from instantavatar_ns.rendering.composite import Pixels, most_optical_depth
from instantavatar_ns.rendering.march import SampleBuffer

_LANES = 64


def composite_triton(
    density: Float[Tensor, "roots"],
    rgb: Float[Tensor, "roots 3"],
    root_starts: Int32[Tensor, "samples"],
    root_counts: Int32[Tensor, "samples"],
    samples: SampleBuffer,
    step: float,
    alpha_threshold: float = 0.0,
    early_stop_eps: float = 0.0,
) -> Pixels:
    """Composite the densest root of every sample; differentiable with respect to density and colour.

    Args:
        density: Of the canonical roots, 1/metres.
        rgb: Of the canonical roots.
        root_starts: Row of each sample's first root.
        root_counts: Roots of each sample; they lie together.
        samples: Where the samples are.
        step: Length of a sample, metres.
        alpha_threshold: Opacity under which a sample counts as empty. For rendering only: the gradient ignores it.
        early_stop_eps: Samples behind less than this are not seen; for rendering only.
    """
    return Pixels(
        *_Composite.apply(
            density,
            rgb,
            root_starts,
            root_counts,
            samples.t_starts,
            samples.starts,
            samples.counts,
            step,
            alpha_threshold,
            most_optical_depth(early_stop_eps),
        )
    )


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, density, rgb, root_starts, root_counts, t_starts, starts, counts, step, alpha_threshold, most_depth
    ):
        num_rays, density, rgb = len(starts), density.contiguous(), rgb.contiguous()
        out_rgb, accumulation, depth = density.new_empty(num_rays, 3), *density.new_empty(2, num_rays)
        weights, chosen = torch.zeros_like(t_starts), torch.full_like(root_starts, -1)
        launch(
            composite_kernel,
            (num_rays,),
            density,
            rgb,
            root_starts,
            root_counts,
            t_starts,
            starts,
            counts,
            out_rgb,
            accumulation,
            depth,
            weights,
            chosen,
            step,
            alpha_threshold,
            most_depth,
            LANES=_LANES,
            num_warps=1,
            fuse=False,  # opacity that is summed over the lanes ends its loop
        )
        ctx.save_for_backward(density, rgb, t_starts, starts, counts, weights, chosen)
        ctx.step = step
        return out_rgb, accumulation, depth, weights

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        density, rgb, t_starts, starts, counts, weights, chosen = ctx.saved_tensors
        grad_density, grad_root_rgb = torch.zeros_like(density), torch.zeros_like(rgb)
        launch(
            composite_backward_kernel,
            (len(starts),),
            density,
            rgb,
            t_starts,
            starts,
            counts,
            weights,
            chosen,
            *(gradient.contiguous() for gradient in gradients),
            grad_density,
            grad_root_rgb,
            ctx.step,
            LANES=_LANES,
            num_warps=1,
        )
        return grad_density, grad_root_rgb, *[None] * 8
