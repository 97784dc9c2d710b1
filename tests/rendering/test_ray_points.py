"""Points on rays by the kernel, and their gradient: those of torch. On a GPU if there is one, else interpreted."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from instantavatar_ns.body.model import rotation_matrices
from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.rendering.inputs import Rays
from instantavatar_ns.rendering.march import SampleBuffer
from instantavatar_ns.rendering.ray_points_triton import sample_points_triton
from tests.rendering.scenes import DEVICE

STEP, RAYS = 0.01, 40


@pytest.mark.parametrize("shared_origin", [True, False])
@pytest.mark.parametrize(("total", "capacity"), [(700, 1024), (1024, 1024), (1500, 1024), (0, 16)])
def test_points_and_gradient_are_those_of_torch(shared_origin: bool, total: int, capacity: int) -> None:
    drawn = torch.Generator().manual_seed(total)
    origins = torch.randn(1 if shared_origin else RAYS, 3, generator=drawn)
    rays = Rays(origins.to(DEVICE), normalize(torch.randn(RAYS, 3, generator=drawn), dim=-1).to(DEVICE))
    transform = torch.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation_matrices(torch.randn(3, generator=drawn)), torch.randn(3)
    transform = transform.to(DEVICE).requires_grad_()
    ray = torch.randint(RAYS, (capacity,), generator=drawn, dtype=torch.int32).to(DEVICE)
    starts = torch.rand(capacity, generator=drawn).to(DEVICE)
    nothing = torch.zeros(RAYS, dtype=torch.int32, device=DEVICE)
    count = torch.tensor([total], dtype=torch.int32, device=DEVICE)
    samples = SampleBuffer(ray, starts, nothing, nothing, count)

    rows = slice(min(total, capacity))
    ours = sample_points_triton(*rays, samples, transform, STEP)
    theirs = rays.points(PosedBody(transform, transform[None]), ray, starts + STEP / 2)
    torch.testing.assert_close(ours[rows], theirs[rows], atol=2e-6, rtol=1e-6)

    factor = torch.randn(capacity, 3, generator=drawn).to(DEVICE)
    factor[rows.stop :] = 0
    (found,) = torch.autograd.grad(ours, transform, factor.where(factor != 0, torch.nan))  # of unwritten rows: anything
    (expected,) = torch.autograd.grad(theirs, transform, factor)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
