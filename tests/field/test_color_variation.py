"""Total variation of colours."""

import pytest
import torch
from torch import Tensor

from instantavatar_ns.field.color_variation import color_variation

VERTICES = 0.3 * torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def ramp(slope: Tensor, density: float):
    """A colour that rises along x in one channel, by `slope` a metre."""

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        color = torch.stack([slope * points[:, 0], 0 * points[:, 0], 0 * points[:, 0]], dim=-1)
        return torch.full_like(points[:, 0], density), color

    return field


def test_variation_of_a_ramp_is_its_slope() -> None:
    torch.manual_seed(0)
    slope = torch.tensor(8.0, requires_grad=True)
    loss = color_variation(ramp(slope, 1e4), VERTICES, 20_000)
    loss.backward()
    expected = 0.0015 * (2 / torch.pi) ** 0.5  # mean of a normal's absolute value
    assert loss.item() == pytest.approx(8 * expected, rel=0.03)
    assert slope.grad is not None and slope.grad.item() == pytest.approx(expected, rel=0.03)


def test_empty_space_does_not_count() -> None:
    assert color_variation(ramp(torch.tensor(8.0), 0.0), VERTICES, 100) == 0


def test_density_gets_no_gradient() -> None:
    density = torch.tensor(30.0, requires_grad=True)

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        return density.expand(len(points)), points

    assert not color_variation(field, VERTICES, 100).requires_grad
