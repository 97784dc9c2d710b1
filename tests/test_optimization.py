"""Adam and its decay, as nerfstudio builds them from the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nerfstudio.engine.optimizers import Optimizers

from instantavatar_ns.config import instant_avatar, instant_avatar_lite
from instantavatar_ns.optimization import FusedAdamConfig, PolynomialDecayConfig


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


@pytest.mark.parametrize("method", [instant_avatar, instant_avatar_lite], ids=lambda method: method.config.method_name)
def test_methods_decay_over_their_own_steps(method) -> None:
    scheduler = method.config.optimizers["field"]["scheduler"]
    assert isinstance(scheduler, PolynomialDecayConfig)
    assert scheduler.max_steps == method.config.max_num_iterations
