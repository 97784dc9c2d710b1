"""Loss terms."""

import math

import pytest
import torch

from instantavatar_ns.losses import hard_surface_loss, mask_loss, opacity_loss, rgb_loss


def test_hard_surface_prior_draws_opacity_to_nothing_or_all() -> None:
    assert hard_surface_loss(torch.tensor([0.0, 1.0])).item() == pytest.approx(0.0, abs=1e-6)
    highest = -math.log(2 * math.exp(-0.5)) + 0.313262  # as the release writes it
    assert hard_surface_loss(torch.tensor([0.5])).item() == pytest.approx(highest, abs=1e-5)
    opacity = torch.tensor([0.2, 0.8], requires_grad=True)
    hard_surface_loss(opacity).backward()
    assert opacity.grad is not None and opacity.grad[0] > 0 > opacity.grad[1]


def test_hard_surface_prior_is_a_mean_and_zero_of_nothing() -> None:
    values = torch.rand(7, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hard_surface_loss(values.repeat(3, 1)), hard_surface_loss(values))
    nothing = torch.zeros(0, requires_grad=True)
    loss = hard_surface_loss(nothing)
    loss.backward()
    assert loss == 0


def test_hard_surface_prior_of_a_buffer_is_that_of_what_it_holds() -> None:
    values = torch.rand(7, generator=torch.Generator().manual_seed(0))
    buffer = torch.cat([values, torch.zeros(5)])
    torch.testing.assert_close(hard_surface_loss(buffer, torch.tensor([7])), hard_surface_loss(values))
    assert hard_surface_loss(torch.zeros(5), torch.tensor([0])).item() == pytest.approx(0.0, abs=1e-6)


def test_mask_loss_is_the_mean_square() -> None:
    assert mask_loss(torch.tensor([[0.2], [1.0]]), torch.tensor([[0.0], [0.5]])).item() == pytest.approx(0.145)


def test_rgb_loss_is_the_mean_square() -> None:
    rgb, truth = torch.tensor([[0.2, 0.4, 0.3], [1.0, 1.0, 0.9]]), torch.tensor([[0.2, 0.4, 0.6], [1.0, 1.0, 1.0]])
    assert rgb_loss(rgb, truth).item() == pytest.approx((0.3**2 + 0.1**2) / 6)


def test_opacity_counts_where_space_should_be_empty_in_the_mean_of_all() -> None:
    opacity = torch.tensor([0.4, 0.8], requires_grad=True)
    assert opacity_loss(opacity).item() == pytest.approx(0.6)
    loss = opacity_loss(opacity, torch.tensor([True, False]))
    loss.backward()
    assert loss.item() == pytest.approx(0.2)
    assert opacity.grad is not None and opacity.grad.tolist() == [0.5, 0.0]
