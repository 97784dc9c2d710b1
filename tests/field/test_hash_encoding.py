"""The hash encoding against a slow one written from tiny-cuda-nn's conventions, point by point."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from instantavatar_ns.field.hash_encoding import HashEncoding, HashGrid

SMALL = HashGrid(levels=5, log2_entries=9, base_resolution=4, growth=1.6)
PRIMES = (1, 2654435761, 805459861)


def reference(grid: HashGrid, params: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Encode points [n, 3] with Python's unbounded integers, as tiny-cuda-nn's grid.h does with 32-bit ones."""
    outputs = np.zeros((len(points), 2 * grid.levels))
    offset = 0
    for level in range(grid.levels):
        scale = np.float32(np.exp2(np.float32(level) * np.log2(np.float32(grid.growth)))) * grid.base_resolution - 1
        resolution = math.ceil(scale) + 1
        vertices = resolution**3
        size = min(math.ceil(vertices / 8) * 8, 2**grid.log2_entries)
        table = params.reshape(-1, 2)[offset : offset + size]
        for number, point in enumerate(points):
            place = point * scale + 0.5
            for corner in np.ndindex(2, 2, 2):
                vertex = [math.floor(p) + c for p, c in zip(place, corner, strict=True)]
                weight = math.prod((p % 1.0) if c else 1 - (p % 1.0) for p, c in zip(place, corner, strict=True))
                if vertices <= size:  # every vertex has a row; x runs fastest
                    row = vertex[0] + vertex[1] * resolution + vertex[2] * resolution**2
                else:
                    row = 0
                    for v, prime in zip(vertex, PRIMES, strict=True):
                        row ^= v * prime % 2**32
                outputs[number, 2 * level : 2 * level + 2] += weight * table[row % size]
        offset += size
    assert offset * 2 == len(params)
    return outputs


@pytest.fixture
def encoding() -> HashEncoding:
    torch.manual_seed(0)
    encoding = HashEncoding(SMALL, "torch").double()
    torch.nn.init.normal_(encoding.params)
    # Scales are single-precision numbers in tiny-cuda-nn too.
    return encoding


def unit_points(count: int) -> torch.Tensor:
    return torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_small_grid_has_dense_and_hashed_levels(encoding: HashEncoding) -> None:
    """Else the comparison below would leave one kind out."""
    assert 0 < encoding.num_dense < SMALL.levels


def test_encoding_is_tiny_cuda_nns(encoding: HashEncoding) -> None:
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).double()
    points = torch.cat([unit_points(40), corners, torch.full((1, 3), 0.5).double()])
    expected = reference(SMALL, encoding.params.detach().numpy(), points.numpy())
    np.testing.assert_allclose(encoding(points).detach().numpy(), expected, atol=1e-9)


def test_points_outside_the_cube_are_moved_to_its_face(encoding: HashEncoding) -> None:
    outside = torch.tensor([[-3.0, 0.3, 0.2], [0.5, 7.0, 1.5]]).double()
    torch.testing.assert_close(encoding(outside), encoding(outside.clamp(0, 1)))


def test_gradients_to_table_and_points(encoding: HashEncoding) -> None:
    points = unit_points(6).requires_grad_(True)

    def encode(points: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(encoding, {"params": params}, (points,))

    params = encoding.params.detach().clone().requires_grad_(True)
    # Of over a thousand numbers a few are looked at: gradcheck's fast mode takes random directions of all.
    assert torch.autograd.gradcheck(encode, (points, params), eps=1e-7, atol=1e-5, fast_mode=True)
    assert torch.autograd.gradcheck(lambda p: encode(p, encoding.params.detach()), (points,), eps=1e-7, atol=1e-4)


def test_a_row_that_is_looked_up_twice_takes_both_gradients(encoding: HashEncoding) -> None:
    point = unit_points(1)
    (once,) = torch.autograd.grad(encoding(point).sum(), encoding.params)
    (twice,) = torch.autograd.grad(encoding(point.repeat(2, 1)).sum(), encoding.params)
    torch.testing.assert_close(twice, 2 * once)
    assert once.sum().item() == pytest.approx(2 * SMALL.levels), "weights of a level sum to one, for both features"


def test_no_points_have_no_features(encoding: HashEncoding) -> None:
    assert encoding(torch.zeros(0, 3).double()).shape == (0, 10)


def test_default_grid_has_instant_ngps_sizes() -> None:
    grid = HashGrid()
    assert grid.num_outputs == 32
    assert grid.resolutions[:5] == [16, 24, 36, 54, 81]
    assert grid.entries[:6] == [4096, 13824, 46656, 157464, 2**19, 2**19]
    assert max(grid.entries) == 2**19
    assert grid.resolutions[-1] == 7007


def test_values_start_small_on_both_sides_of_zero() -> None:
    params = HashEncoding(SMALL, "torch").params
    assert params.abs().max() <= 1e-4 and params.min() < -5e-5 and params.max() > 5e-5
