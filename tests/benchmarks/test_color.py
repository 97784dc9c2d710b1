"""The benchmark of colours: what it measures of images."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.color import high_frequencies, summary, table


def figures(rendered: Tensor, truth: Tensor) -> dict[str, float]:
    model = SimpleNamespace(get_outputs_for_camera=lambda camera: {"rgb": rendered})
    return high_frequencies(model, [(None, truth)])


def test_grain_and_smoothness_are_told_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.ones(64, 64, 3)
    truth[16:48, 16:48] = 0.3 + 0.3 * torch.rand(32, 32, 3, generator=generator)
    assert figures(truth, truth) == {"grain": pytest.approx(1), "noise": pytest.approx(0, abs=1e-6)}
    person = (truth < 1).any(dim=-1, keepdim=True)
    grainy = torch.where(person, truth + 0.1 * torch.randn(truth.shape, generator=generator), truth).clamp(0, 0.99)
    blurred = F.avg_pool2d(truth.movedim(-1, 0), 5, 1, 2).movedim(0, -1).clamp(max=0.99)
    smooth = torch.where(person, blurred, truth)
    assert figures(grainy, truth)["grain"] > 1.2 and figures(grainy, truth)["noise"] > 0.5
    assert figures(smooth, truth)["grain"] < 0.5 and 0.7 < figures(smooth, truth)["noise"] < 1.1


def test_means_are_those_of_a_subjects_candidate() -> None:
    runs = {f"a.b.ema-0.99.{seed}": {"novel_psnr": 27.0 + seed, "light": [1.0]} for seed in (0, 2)}
    means = summary({**runs, "a.b.off.0": {"novel_psnr": 20.0}})
    assert means["a.b"]["ema-0.99"]["novel_psnr"] == 28.0 and means["a.b"]["off"]["seeds"] == 1
    assert "a.b.ema-0.99" in table(means) and "28.0000" in table(means)
