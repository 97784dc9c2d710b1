"""Pixels, and the weights of packed samples in them: nerfacc on CUDA, its twin in torch elsewhere."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from nerfacc import render_weight_from_density
from torch import Tensor

from instantavatar_ns.rendering.march import Samples
from instantavatar_ns.rendering.nerfacc_cuda import nerfacc_cuda


class Pixels(NamedTuple):
    """Colour, opacity and depth of rays, and the weight of each sample in them.

    Attributes:
        rgb: Colour in front of black.
        accumulation: Opacity of the ray.
        depth: Sum of the weights times the distances of the samples, metres.
        weights: Share of each sample in its pixel; zero in the unused part of the buffer.
    """

    rgb: Float[Tensor, "rays 3"]
    accumulation: Float[Tensor, "rays"]
    depth: Float[Tensor, "rays"]
    weights: Float[Tensor, "samples"]


def sample_weights(
    samples: Samples, density: Float[Tensor, "samples"], num_rays: int
) -> tuple[Float[Tensor, "samples"], Float[Tensor, "samples"]]:
    """Share of each sample in its pixel, and the transmittance in front of it.

    Args:
        samples: Packed samples, ordered along each ray.
        density: Their densities, 1/metres.
        num_rays: How many rays there are.
    """
    if density.is_cuda and nerfacc_cuda() and len(density):
        weights, transmittance, _ = render_weight_from_density(
            samples.t_starts, samples.t_ends, density, ray_indices=samples.ray_indices, n_rays=num_rays
        )
        return weights, transmittance
    return sample_weights_torch(samples.ray_indices, (samples.t_ends - samples.t_starts) * density, num_rays)


def sample_weights_torch(
    ray_indices: Int[Tensor, "samples"], optical_depth: Float[Tensor, "samples"], num_rays: int
) -> tuple[Float[Tensor, "samples"], Float[Tensor, "samples"]]:
    """Compute `sample_weights` by one running sum over all samples, less its value at each ray's first.

    Args:
        ray_indices: Ray of each sample, ascending.
        optical_depth: Density times length of each sample.
        num_rays: Number of rays.

    Returns:
        Weight of each sample in its pixel, and the transmittance in front of it.
    """
    if not len(optical_depth):
        return optical_depth, optical_depth
    # In double precision: the sum runs over thousands of rays and the difference must still resolve one sample.
    inclusive = optical_depth.double().cumsum(dim=0)
    exclusive = inclusive - optical_depth
    counts = torch.zeros(num_rays, dtype=torch.long, device=ray_indices.device)
    counts = counts.index_add_(0, ray_indices, torch.ones_like(ray_indices))
    first = (counts.cumsum(0) - counts)[ray_indices]
    transmittance = torch.exp(-(exclusive - exclusive[first])).to(optical_depth.dtype)
    return transmittance * -torch.expm1(-optical_depth), transmittance


def most_optical_depth(early_stop_eps: float) -> float:
    """Optical depth behind which nothing is seen: minus the logarithm of the least transmittance."""
    return -math.log(early_stop_eps) if early_stop_eps > 0 else math.inf
