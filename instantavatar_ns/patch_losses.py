"""Loss terms on square patches, for videos in the wild: LPIPS and depth (InstantAvatar's in-the-wild configuration)."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.perceptual import lpips

_VGG_LEAST_SIZE = 16  # pixels: it halves an image four times


def as_patches(
    values: Float[Tensor, "rays channels"], size: int | None, least: int = 1
) -> Float[Tensor, "patches size size channels"]:
    """Rays of patches as the data manager draws them, patch by patch and row by row, as images.

    Args:
        values: Of the rays.
        size: Edge of a patch, pixels; None if the rays are single ones.
        least: Smallest size that will do.

    Raises:
        InputError: The rays are single ones, or the patches too small.
    """
    if size is None or size < least:
        found = "single pixels" if size is None else f"{size}"
        raise InputError(
            "--pipeline.datamanager.sampling",
            f"expected patches of at least {least} pixels for the losses on patches, found {found}",
            "Set sampling to patches and patch-size to 32, or --pipeline.model.lpips-loss-mult and "
            "--pipeline.model.depth-loss-mult to 0",
        )
    return values.reshape(-1, size, size, values.shape[-1])


def patch_lpips_loss(
    rendered: Float[Tensor, "rays 3"], truth: Float[Tensor, "rays 3"], size: int | None, network: nn.Module
) -> Float[Tensor, ""]:
    """LPIPS of patches with values from 0 to 1, summed over them as InstantAvatar does.

    Args:
        rendered: Rendered patches.
        truth: What they should look like, on the same background.
        size: See `as_patches`.
        network: That of `lpips_vgg`.

    Raises:
        InputError: See `as_patches`.
    """
    images = [as_patches(colors, size, _VGG_LEAST_SIZE).movedim(-1, 1) for colors in (rendered, truth)]
    return network(*images, normalize=True).sum()


def patch_depth_loss(
    depth: Float[Tensor, "rays 1"], accumulation: Float[Tensor, "rays 1"], size: int | None
) -> Float[Tensor, ""]:
    """How far depth lies from its mean over the patch, metres: against specks that float before or behind the person.

    Pixels count by their opacity, those that are mostly empty not at all. No gradient reaches the opacity, which would
    otherwise fall wherever the person is not flat.

    Args:
        depth: Distance along the ray, metres.
        accumulation: Opacity.
        size: See `as_patches`.

    Raises:
        InputError: See `as_patches`.
    """
    weight = as_patches(torch.where(accumulation > 0.5, accumulation, 0.0).detach(), size)
    depth = as_patches(depth, size)
    mean = (weight * depth).sum(dim=(1, 2), keepdim=True) / weight.sum(dim=(1, 2), keepdim=True).clamp_min(1e-3)
    return (weight * (depth - mean).abs()).mean()


def lpips_vgg(file: Path | None, device: str) -> nn.Module:
    """LPIPS-VGG; built once per process.

    Args:
        file: State of torchvision's VGG16 (its `features` suffice), or None to let torchvision download it.
        device: Where to put it.

    Raises:
        InputError: The file given is missing or holds something else, or the download failed.
    """
    try:
        return lpips("vgg", file, device)
    except OSError as error:  # urllib's errors: no network
        raise InputError(
            "VGG16's weights",
            f"expected to download them for the LPIPS loss ({error})",
            "Give the file that torchvision downloads, vgg16-397923af.pth, with --pipeline.model.vgg-backbone, or do "
            "without the term: --pipeline.model.lpips-loss-mult 0",
        ) from error
