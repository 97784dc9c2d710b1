"""Work on several streams, as it is and captured."""

from __future__ import annotations

import pytest
import torch

from instantavatar_ns.utils.cuda_graph import CudaGraph, side_by_side

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = [torch.device("cpu"), pytest.param(torch.device("cuda"), marks=needs_gpu)]


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_results_come_in_order(device: torch.device) -> None:
    value = torch.arange(5.0, device=device)
    first, second, third = side_by_side(device, lambda: value + 1, lambda: "a word", lambda: value * 2)
    assert torch.equal(first, value + 1) and second == "a word" and torch.equal(third, value * 2)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_captured_work_sees_new_values_and_is_whole_when_it_is_used(device: torch.device) -> None:
    size = 1 << 22 if device.type == "cuda" else 64  # streams that were not waited for would end later
    value = torch.zeros(size, device=device)

    def slowly(tensor: torch.Tensor) -> torch.Tensor:
        for _ in range(20):
            tensor = tensor.sin().asin()
        return tensor

    def total() -> torch.Tensor:
        before = value + 1
        first, second = side_by_side(device, lambda: before * 2, lambda: slowly(before) * 3)
        return first.mean() + second.mean()

    graph = CudaGraph(total, device)
    for number in (0.0, 0.25, 0.5):
        value.fill_(number)
        assert graph().item() == pytest.approx(5 * (number + 1), rel=1e-3)
