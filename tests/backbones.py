"""Files that stand for torchvision's downloads: random weights in the layout of its networks."""

from __future__ import annotations

from pathlib import Path

import torch

_VGG_WIDTHS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512, 21: 512, 24: 512, 26: 512}
_VGG_WIDTHS[28] = 512


def vgg_state(path: Path) -> Path:
    """Write the convolutions of a VGG16 whose activations keep their size from layer to layer."""
    generator = torch.Generator().manual_seed(0)
    state, before = {}, 3
    for layer, width in _VGG_WIDTHS.items():
        scale = (2 / (9 * before)) ** 0.5
        state[f"features.{layer}.weight"] = scale * torch.randn(width, before, 3, 3, generator=generator)
        state[f"features.{layer}.bias"] = torch.zeros(width)
        before = width
    torch.save(state, path)
    return path
