"""Adam and its decay, as nerfstudio builds them from the configuration."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from nerfstudio.engine.optimizers import Optimizers

from instantavatar_ns.config import instant_avatar, instant_avatar_lite, instant_avatar_wild
from instantavatar_ns.optimizers import FusedAdamConfig, PolynomialDecayConfig, RowAdamConfig


def build(max_steps: int = 10) -> tuple[torch.nn.Parameter, Optimizers]:
    parameter = torch.nn.Parameter(torch.ones(4))
    config = {"optimizer": FusedAdamConfig(), "scheduler": PolynomialDecayConfig(max_steps=max_steps)}
    return parameter, Optimizers({"field": config}, {"field": [parameter]})


def step(parameter: torch.nn.Parameter, optimizers: Optimizers, number: int) -> None:
    optimizers.zero_grad_all()
    parameter.square().sum().backward()
    optimizers.optimizer_step_all()
    optimizers.scheduler_step_all(number)


def test_rate_decays_to_zero_as_the_paper_says() -> None:
    parameter, optimizers = build()
    rates = []
    for number in range(10):
        rates.append(optimizers.optimizers["field"].param_groups[0]["lr"])
        step(parameter, optimizers, number)
    assert rates == pytest.approx([1e-2 * (1 - number / 10) ** 1.5 for number in range(10)])
    assert all(type(rate) is float for rate in rates), "NumPy's would keep the checkpoint from loading"
    assert optimizers.optimizers["field"].param_groups[0]["lr"] == pytest.approx(0.0)


def test_adam_has_the_momenta_of_the_release() -> None:
    adam = build()[1].optimizers["field"]
    assert isinstance(adam, torch.optim.Adam)
    group = adam.param_groups[0]
    assert (group["betas"], group["eps"], group["fused"]) == ((0.9, 0.99), 1e-15, True)


def test_first_step_moves_by_the_rate() -> None:
    parameter, optimizers = build()
    step(parameter, optimizers, 0)
    torch.testing.assert_close(parameter.detach(), torch.full((4,), 0.99))


def test_checkpoint_loads_as_torch_loads_by_default_and_goes_on(tmp_path: Path) -> None:
    straight, straight_optimizers = build()
    for number in range(6):
        step(straight, straight_optimizers, number)

    first, optimizers = build()
    for number in range(3):
        step(first, optimizers, number)
    path = tmp_path / "step.ckpt"
    state = {
        "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.optimizers.items()},
        "schedulers": {name: scheduler.state_dict() for name, scheduler in optimizers.schedulers.items()},
        "parameter": first.detach(),
    }
    torch.save(state, path)
    loaded = torch.load(path, weights_only=True)
    second, resumed = build()
    second.data.copy_(loaded["parameter"])
    resumed.load_optimizers(loaded["optimizers"])
    resumed.load_schedulers(loaded["schedulers"])
    for number in range(3, 6):
        step(second, resumed, number)
    assert torch.equal(second, straight)


@pytest.mark.parametrize(
    "method",
    [instant_avatar, instant_avatar_lite, instant_avatar_wild],
    ids=lambda method: method.config.method_name,
)
def test_methods_decay_over_their_own_steps(method) -> None:
    scheduler = method.config.optimizers["field"]["scheduler"]
    assert isinstance(scheduler, PolynomialDecayConfig)
    assert scheduler.max_steps == method.config.max_num_iterations


def test_row_adam_is_adam_for_rows_that_are_always_seen() -> None:
    random = torch.Generator().manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    row_adam = RowAdamConfig(lr=0.1).setup([ours])
    adam = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99), eps=RowAdamConfig().eps)
    for _ in range(10):
        gradient = torch.randn(4, 3, generator=random)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        row_adam.step()
        adam.step()
    torch.testing.assert_close(ours, theirs)


def test_row_adam_lets_unseen_rows_rest_and_forgets_nothing_of_them() -> None:
    """A row seen every third step moves as if the steps between had not been."""
    random = torch.Generator().manual_seed(0)
    seldom, always = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(1, 2))
    optimizers = [RowAdamConfig(lr=0.1).setup([parameter]) for parameter in (seldom, always)]
    for step in range(12):
        row = step % 3
        gradient = torch.randn(2, generator=random)
        seldom.grad = torch.zeros(3, 2)
        seldom.grad[row] = gradient
        before = seldom.detach().clone()
        optimizers[0].step()
        unseen = [other for other in range(3) if other != row]
        assert torch.equal(seldom[unseen], before[unseen])
        if row == 1:
            always.grad = gradient[None].clone()
            optimizers[1].step()
    torch.testing.assert_close(seldom[1], always[0])


def test_row_adam_state_survives_a_checkpoint() -> None:
    gradient = torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    one, other = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(2))
    first, second = (RowAdamConfig().setup([parameter]) for parameter in (one, other))
    one.grad = gradient.clone()
    first.step()
    other.data.copy_(one.data)
    second.load_state_dict(deepcopy(first.state_dict()))
    for parameter, optimizer in ((one, first), (other, second)):
        parameter.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(one, other)
    # Without the step count, the second step would be the length of a first one's.
    assert one[0].ne(0).all() and one[1].eq(0).all()
    assert torch.equal(second.state[other]["steps"].flatten(), torch.tensor([2.0, 0.0]))


def test_kernel_of_rows_moves_them_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ours, theirs = (torch.nn.Parameter(torch.ones(6, 25, device=device)) for _ in range(2))
    by_kernel, by_torch = (RowAdamConfig(lr=0.1).setup([parameter]) for parameter in (ours, theirs))
    monkeypatch.setattr(by_kernel, "_update_torch", by_kernel._update_triton)
    monkeypatch.setattr(by_torch, "_update_triton", by_torch._update_torch)
    random = torch.Generator().manual_seed(0)
    for _ in range(6):
        gradient = torch.randn(6, 25, generator=random) * (torch.rand(6, 1, generator=random) < 0.5)
        ours.grad, theirs.grad = gradient.to(device), gradient.to(device)
        by_kernel.step()
        by_torch.step()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert ours.detach().std() > 0.1


@pytest.mark.parametrize(("asked", "last"), [(12, 12), (4, 6)])
def test_training_can_be_prolonged(asked: int, last: int) -> None:
    """And a shorter schedule, the default one perhaps, does not end a longer one."""
    first, optimizers = build(max_steps=6)
    for number in range(3):
        step(first, optimizers, number)
    checkpoint = optimizers.optimizers["field"].state_dict(), optimizers.schedulers["field"].state_dict()

    second, resumed = build(max_steps=asked)
    resumed.load_optimizers({"field": checkpoint[0]})
    resumed.load_schedulers({"field": checkpoint[1]})
    for number in range(3, last):
        rate = resumed.optimizers["field"].param_groups[0]["lr"]
        assert rate == pytest.approx(1e-2 * (1 - number / last) ** 1.5) and type(rate) is float
        step(second, resumed, number)
    assert resumed.optimizers["field"].param_groups[0]["lr"] == 0
