"""The small network: its layout of parameters, and padding."""

from __future__ import annotations

import torch

from instantavatar_ns.field.mlp import MLP


def test_network_is_products_of_the_matrices_in_its_parameters() -> None:
    """15 inputs are padded to 16 with a one, which makes the first layer's last column a bias; 3 outputs to 16."""
    torch.manual_seed(0)
    mlp = MLP(15, 3, width=32, hidden_layers=2, implementation="torch")
    assert mlp.params.numel() == 32 * 16 + 32 * 32 + 16 * 32
    first, second, last = mlp.params.detach().split([32 * 16, 32 * 32, 16 * 32])
    inputs = torch.randn(7, 15)
    hidden = (first.view(32, 16) @ torch.cat([inputs, torch.ones(7, 1)], dim=1).T).relu()
    hidden = (second.view(32, 32) @ hidden).relu()
    torch.testing.assert_close(mlp(inputs), (last.view(16, 32) @ hidden).T[:, :3], atol=1e-5, rtol=1e-5)


def test_inputs_that_fill_a_multiple_of_sixteen_are_not_padded() -> None:
    mlp = MLP(32, 16, width=64, hidden_layers=1, implementation="torch")
    assert mlp.params.numel() == 64 * 32 + 16 * 64
    assert not mlp(torch.zeros(2, 32)).any(), "there is no bias"


def test_padded_input_acts_as_a_bias() -> None:
    torch.manual_seed(0)
    assert MLP(15, 3, implementation="torch")(torch.zeros(1, 15)).abs().max() > 0


def test_gradient_reaches_inputs_and_used_parameters() -> None:
    torch.manual_seed(0)
    mlp = MLP(5, 3, width=16, hidden_layers=2, implementation="torch").double()
    inputs = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)

    def run(inputs: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(mlp, {"params": params}, (inputs,))

    assert torch.autograd.gradcheck(run, (inputs, mlp.params.detach().requires_grad_(True)), fast_mode=True)


def test_no_inputs_give_no_outputs() -> None:
    assert MLP(15, 3, implementation="torch")(torch.zeros(0, 15)).shape == (0, 3)
