"""Weights of packed samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instantavatar_ns.rendering.composite import Pixels, sample_weights, sample_weights_torch
from instantavatar_ns.rendering.composite_triton import composite_triton
from instantavatar_ns.rendering.march import SampleBuffer, Samples
from instantavatar_ns.rendering.nerfacc_cuda import nerfacc_cuda

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


# The Triton kernels, on the GPU if there is one, else in Triton's interpreter

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEP = 0.05
CAPACITY = 400


def buffers(seed: int = 0) -> tuple[SampleBuffer, Tensor, Tensor, int]:
    """Samples of four rays (none, few, and more than a kernel has lanes), each with up to three roots."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor([5, 0, 150, 70], dtype=torch.int32)
    starts = torch.tensor([220, 0, 70, 0], dtype=torch.int32)
    ray_indices, t_starts = torch.zeros(CAPACITY, dtype=torch.int32), torch.zeros(CAPACITY)
    for ray in range(4):
        rows = slice(int(starts[ray]), int(starts[ray] + counts[ray]))
        ray_indices[rows], t_starts[rows] = ray, 1 + STEP * torch.arange(int(counts[ray]))
    root_counts = torch.randint(4, (CAPACITY,), generator=generator, dtype=torch.int32)
    root_counts[int(counts.sum()) :] = 0
    root_starts = (root_counts.cumsum(0) - root_counts).int()
    samples = SampleBuffer(ray_indices, t_starts, starts, counts, counts.sum()[None].int())
    return samples, root_starts, root_counts, int(root_counts.sum())


def roots_of(num_roots: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    density = 4 * torch.rand(num_roots + 10, generator=generator) ** 3
    return density, torch.rand(num_roots + 10, 3, generator=generator)


def composite_one_by_one(
    density: Tensor, rgb: Tensor, root_starts: Tensor, root_counts: Tensor, samples: SampleBuffer
) -> Pixels:
    """The same by a loop over rays and samples."""
    pixels = []
    weights = [torch.zeros((), dtype=density.dtype)] * CAPACITY
    for ray in range(len(samples.starts)):
        transmittance = torch.ones((), dtype=density.dtype)
        color, accumulation, depth = torch.zeros(3, dtype=density.dtype), 0 * transmittance, 0 * transmittance
        for sample in range(int(samples.starts[ray]), int(samples.starts[ray] + samples.counts[ray])):
            roots = range(int(root_starts[sample]), int(root_starts[sample] + root_counts[sample]))
            if not roots:
                continue
            root = max(roots, key=lambda row: density[row].item())
            weight = transmittance * (1 - torch.exp(-density[root] * STEP))
            color = color + weight * rgb[root]
            accumulation = accumulation + weight
            depth = depth + weight * (samples.t_starts[sample] + STEP / 2)
            weights[sample] = weight
            transmittance = transmittance * torch.exp(-density[root] * STEP)
        pixels.append((color, accumulation, depth))
    return Pixels(*(torch.stack(part) for part in zip(*pixels, strict=True)), torch.stack(weights))


def on_device(samples: SampleBuffer) -> SampleBuffer:
    return SampleBuffer(*(getattr(samples, name).to(DEVICE) for name in SampleBuffer.__dataclass_fields__))


def test_pixels_and_their_gradients_are_those_of_a_loop() -> None:
    samples, root_starts, root_counts, total = buffers()
    values = roots_of(total)
    # A mixture of everything that a loss may look at.
    picks = [torch.randn(shape, generator=torch.Generator().manual_seed(2)) for shape in ((4, 3), 4, 4, CAPACITY)]
    picks[3][int(samples.total) :] = 0
    expected_leaves = [value.double().requires_grad_(True) for value in values]
    expected = composite_one_by_one(*expected_leaves, root_starts, root_counts, samples)
    expected_grads = torch.autograd.grad(
        sum((part * pick).sum() for part, pick in zip(expected, picks, strict=True)), expected_leaves
    )
    leaves = [value.to(DEVICE).requires_grad_(True) for value in values]
    pixels = composite_triton(*leaves, root_starts.to(DEVICE), root_counts.to(DEVICE), on_device(samples), STEP)
    grads = torch.autograd.grad(
        sum((part * pick.to(DEVICE)).sum() for part, pick in zip(pixels, picks, strict=True)), leaves
    )
    for ours, reference in zip((*pixels, *grads), (*expected, *expected_grads), strict=True):
        assert reference.abs().max() > 0.01
        torch.testing.assert_close(ours.cpu().double(), reference, atol=2e-6, rtol=1e-4)


def test_rendering_drops_thin_and_hidden_samples() -> None:
    samples, root_starts, root_counts, total = buffers()
    values = [value.to(DEVICE) for value in roots_of(total)]
    links = root_starts.to(DEVICE), root_counts.to(DEVICE)
    alpha_threshold, early_stop_eps = 0.02, 0.05
    pixels = composite_triton(*values, *links, on_device(samples), STEP, alpha_threshold, early_stop_eps)
    density = torch.where(1 - torch.exp(-values[0] * STEP) < alpha_threshold, 0.0, values[0])
    thick = composite_triton(density, values[1], *links, on_device(samples), STEP)
    ray = 2
    rows = slice(int(samples.starts[ray]), int(samples.starts[ray] + samples.counts[ray]))
    weights = thick.weights[rows].cpu()
    transmittance = 1 - weights.cumsum(0) + weights
    expected = torch.where(transmittance < early_stop_eps, 0.0, weights)
    assert 0 < (expected == 0).sum() < len(expected) and transmittance.min() < early_stop_eps
    torch.testing.assert_close(pixels.weights[rows].cpu(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels.accumulation[ray].cpu(), expected.sum(), atol=1e-5, rtol=0)
