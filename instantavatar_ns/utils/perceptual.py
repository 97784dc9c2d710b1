"""LPIPS (arXiv 1801.03924): torchmetrics' network with a backbone from a file, or from torchvision's download."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.later_imports import torchmetrics_of_images

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum


class _Backbone(NamedTuple):
    name: str
    weights: str  # name of torchvision's enumeration of its weights
    convolutions: tuple[int, ...]  # their places in torchvision's `features`


_BACKBONES = {
    "alex": _Backbone("AlexNet", "AlexNet_Weights", (0, 3, 6, 8, 10)),
    "vgg": _Backbone("VGG16", "VGG16_Weights", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
}


@cache
def lpips(net: Literal["alex", "vgg"], file: Path | None, device: str) -> nn.Module:
    """LPIPS without trainable parameters; built once per process.

    Args:
        net: Its backbone, AlexNet (for evaluation) or VGG16 (as a loss).
        file: State of torchvision's network (its `features` suffice), or None to let torchvision download it.
        device: Where to put it.

    Returns:
        A module that takes two batches of images [n, 3, height, width], and `normalize=True` where their values are
        from 0 to 1, not from -1 to 1; it gives [n, 1, 1, 1].

    Raises:
        InputError: The file is missing or holds something else.
        OSError: The download failed.
    """
    layers = iter(_convolutions(_BACKBONES[net], file))
    # The linear heads come with torchmetrics; only the backbone is a download, so it is put in by hand.
    network = torchmetrics_of_images().lpips._LPIPS(pretrained=True, net=net, pnet_rand=True)
    for module in network.net.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            module.weight.data.copy_(next(layers))
            module.bias.data.copy_(next(layers))
    return network.eval().requires_grad_(False).to(device)


def _convolutions(backbone: _Backbone, file: Path | None) -> list[Tensor]:
    """Weights and biases of a backbone's convolutions, in order."""
    import torchvision.models  # not at start-up: it brings PyTorch's compiler

    weights = getattr(torchvision.models, backbone.weights).IMAGENET1K_V1
    name, url = backbone.name, Path(weights.url).name
    advice = f"Give the file that torchvision downloads ({url}), or none to let it download it"
    if file is None:
        state = download(weights)
    elif not file.is_file():
        raise InputError(file, f"expected {name}'s weights for LPIPS, found no such file", advice)
    else:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds
            message = str(error).splitlines()[0]
            raise InputError(file, f"expected {name}'s weights ({message})", advice) from error
    expected = [f"features.{layer}.{kind}" for layer in backbone.convolutions for kind in ("weight", "bias")]
    missing = [key for key in expected if key not in state]
    if missing:
        raise InputError(file or "torchvision", f"expected {name}'s features, found no {missing[0]}", advice)
    return [state[key] for key in expected]


def download(weights: WeightsEnum) -> dict[str, Tensor]:
    """State of a torchvision network, from torch's cache or the network; raises an OSError where there is neither."""
    return dict(weights.get_state_dict(progress=False))
