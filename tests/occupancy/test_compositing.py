"""Weights of packed samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instantavatar_ns.occupancy.compositing import sample_weights, sample_weights_torch
from instantavatar_ns.occupancy.nerfacc_cuda import nerfacc_cuda
from instantavatar_ns.occupancy.traversal import Samples

RAYS = 6
RAY_INDICES = torch.tensor([0, 0, 0, 2, 3, 3, 3, 3, 5, 5])  # rays 1 and 4 have no samples
needs_nerfacc = pytest.mark.skipif(not nerfacc_cuda(), reason="needs a GPU and nerfacc's CUDA functions")


def optical_depth() -> Tensor:
    return 2 * torch.rand(len(RAY_INDICES), dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_weights_are_those_of_a_loop_over_each_ray() -> None:
    depth = optical_depth()
    expected, in_front = [], []
    for ray in range(RAYS):
        transmittance = 1.0
        for value in depth[RAY_INDICES == ray].tolist():
            in_front.append(transmittance)
            expected.append(transmittance * (1 - math.exp(-value)))
            transmittance *= math.exp(-value)
    weights, transmittance = sample_weights_torch(RAY_INDICES, depth, RAYS)
    torch.testing.assert_close(weights, torch.tensor(expected).double(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(transmittance, torch.tensor(in_front).double(), atol=1e-6, rtol=1e-6)


def test_density_counts_times_length() -> None:
    starts = torch.linspace(1, 2, len(RAY_INDICES))
    lengths = torch.linspace(0.1, 0.3, len(RAY_INDICES))
    density = 10 * optical_depth().float()
    weights, _ = sample_weights(Samples(RAY_INDICES, starts, starts + lengths), density, RAYS)
    torch.testing.assert_close(weights, sample_weights_torch(RAY_INDICES, density * lengths, RAYS)[0])


def test_gradients_of_weights() -> None:
    depth = optical_depth().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda value: sample_weights_torch(RAY_INDICES, value, RAYS), (depth,))


def test_single_precision_holds_over_many_opaque_rays() -> None:
    """The running sum of 20,000 rays reaches 400,000; a lone thin sample must still weigh what it should."""
    ray_indices = torch.arange(20_000).repeat_interleave(2)
    depth = torch.tensor([20.0, 1e-3]).repeat(20_000)
    depth[-2:] = torch.tensor([1e-3, 5e-4])
    weights, transmittance = sample_weights_torch(ray_indices, depth, 20_000)
    assert weights.dtype == torch.float32
    assert transmittance[-2] == 1.0
    assert weights[-2].item() == pytest.approx(1 - math.exp(-1e-3), rel=1e-4)
    assert weights[-1].item() == pytest.approx(math.exp(-1e-3) * (1 - math.exp(-5e-4)), rel=1e-4)


def test_no_samples_have_no_weights() -> None:
    weights, transmittance = sample_weights_torch(torch.zeros(0, dtype=torch.long), torch.zeros(0), 4)
    assert weights.shape == transmittance.shape == (0,)


@needs_nerfacc
def test_nerfaccs_weights_and_gradients_are_the_twins() -> None:
    lengths = torch.linspace(0.1, 0.3, len(RAY_INDICES)).cuda()
    samples = Samples(RAY_INDICES.cuda(), torch.zeros_like(lengths), lengths)
    density = (10 * optical_depth().float()).cuda().requires_grad_(True)
    picks = torch.linspace(-1, 1, len(lengths)).cuda()
    theirs = sample_weights(samples, density, RAYS)
    (their_gradient,) = torch.autograd.grad((theirs[0] * picks).sum(), density)
    ours = sample_weights_torch(samples.ray_indices, density * lengths, RAYS)
    (our_gradient,) = torch.autograd.grad((ours[0] * picks).sum(), density)
    torch.testing.assert_close(theirs[0], ours[0], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(theirs[1], ours[1], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(their_gradient, our_gradient, atol=1e-6, rtol=1e-3)
