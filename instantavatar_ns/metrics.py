"""Image metrics of the published tables (InstantAvatar section 4): whole image, white background, 8-bit."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchvision.models import alexnet

from instantavatar_ns.errors import InputError


def quantise(image: Float[Tensor, "*image"]) -> Float[Tensor, "*image"]:
    """The image as an 8-bit file would hold it."""
    return (image.clamp(0, 1) * 255).round() / 255


def image_metrics(
    rendered: Float[Tensor, "height width 3"],
    truth: Float[Tensor, "height width 3"],
    lpips_backbone: Path | None,
) -> dict[str, float]:
    """PSNR, SSIM and, where its weights can be had, LPIPS-AlexNet of two images with values from 0 to 1.

    LPIPS comes twice: `lpips` is computed as defined, on values from -1 to 1; `lpips_published` as InstantAvatar and
    the papers after it did, on values from 0 to 1, which gives lower numbers.

    Args:
        rendered: The model's image.
        truth: The photograph.
        lpips_backbone: File with AlexNet's convolutions; None for torchvision's download.
    """
    images = [quantise(image).moveaxis(-1, 0)[None] for image in (rendered, truth)]
    metrics = {
        "psnr": float(peak_signal_noise_ratio(*images, data_range=1.0)),
        "ssim": float(structural_similarity_index_measure(*images)),  # pyright: ignore[reportArgumentType]
    }
    lpips = lpips_alex(lpips_backbone, str(images[0].device))
    if lpips is not None:
        with torch.no_grad():
            metrics["lpips"] = float(lpips(images[0], images[1], normalize=True))
            metrics["lpips_published"] = float(lpips(images[0], images[1], normalize=False))
    return metrics


@cache
def lpips_alex(backbone: Path | None, device: str) -> nn.Module | None:
    """LPIPS-AlexNet, built when it is first needed; None, and a word on what to do, where its weights cannot be had.

    Args:
        backbone: File with the state of torchvision's AlexNet (its `features` suffice), or None to let torchvision
            download it.
        device: Where to put it.

    Raises:
        InputError: The file given is missing or holds something else.
    """
    from torchmetrics.functional.image.lpips import _LPIPS

    # The linear heads come with torchmetrics; only the backbone is a download, so it is put in by hand.
    lpips = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    try:
        features = _alexnet_features(backbone)
    except OSError as error:  # urllib's errors: no network
        CONSOLE.print(
            f"[yellow]LPIPS is left out: AlexNet's weights cannot be downloaded ({error}). Give a local file with "
            "--pipeline.model.lpips-backbone (AlexNet's state as torchvision saves it).[/yellow]"
        )
        return None
    layers = iter(features.values())
    for module in lpips.net.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            module.weight.data.copy_(next(layers))
            module.bias.data.copy_(next(layers))
    return lpips.eval().requires_grad_(False).to(device)


def _alexnet_features(backbone: Path | None) -> dict[str, Tensor]:
    """Weights and biases of AlexNet's five convolutions, in order."""
    advice = "Give the file that torchvision downloads (alexnet-owt-*.pth), or none to let it download it"
    if backbone is None:
        state = alexnet(weights="DEFAULT", progress=False).state_dict()
    elif not backbone.is_file():
        raise InputError(backbone, "expected AlexNet's weights for LPIPS, found no such file", advice)
    else:
        try:
            state = torch.load(backbone, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds
            message = str(error).splitlines()[0]
            raise InputError(backbone, f"expected AlexNet's weights ({message})", advice) from error
    expected = [f"features.{layer}.{kind}" for layer in (0, 3, 6, 8, 10) for kind in ("weight", "bias")]
    missing = [key for key in expected if key not in state]
    if missing:
        raise InputError(backbone or "torchvision", f"expected AlexNet's features, found no {missing[0]}", advice)
    return {key: state[key] for key in expected}
