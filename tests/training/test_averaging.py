"""Averaged weights."""

import pytest
import torch
from torch import nn

from instantavatar_ns.training.averaging import WeightAverage


def test_average_of_the_last_third_takes_the_place_of_the_last_weights() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    average, expected = WeightAverage([parameter], 0.9, first=100, last=129), None
    for step in range(100, 130):
        with torch.no_grad():
            parameter.fill_(float(step))
        place = parameter.data_ptr()
        average.after_step(step)
        if step >= 120:
            expected = float(step) if expected is None else 0.9 * expected + 0.1 * step
        if step < 129:
            assert parameter.tolist() == [step] * 2
    assert parameter.tolist() == pytest.approx([expected] * 2) and parameter.data_ptr() == place
