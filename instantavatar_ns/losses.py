"""Loss terms of InstantAvatar (section 3.4).

`loss_terms` puts them together with their weights. Those of patches belong to the in-the-wild configuration.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn

from instantavatar_ns.backgrounds import on_same_background
from instantavatar_ns.kernels.usable import triton_usable
from instantavatar_ns.model_config import InstantAvatarModelConfig
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.perceptual import lpips

_HARD_SURFACE_MINIMUM = math.log(1 + math.exp(-1))  # of the prior, reached at 0 and 1
_VGG_SMALLEST = 16  # pixels: it halves an image four times


def loss_terms(
    outputs: dict[str, Tensor],
    batch: dict[str, Any],
    config: InstantAvatarModelConfig,
    background: float | None,
    step: int | None,
) -> dict[str, Tensor]:
    """Return all terms of a batch with their weights.

    Args:
        outputs: Of the model.
        batch: `image` [rays, 4], colours and opacity, and `patch_size` where the rays are those of patches.
        config: Names the weights.
        background: Colour behind the person; None for random ones.
        step: Of training; None for evaluation, which knows colours and masks only.

    Raises:
        InputError: See `as_patches` and `lpips_vgg`.
    """
    accumulation = outputs["accumulation"]
    image = batch["image"].to(accumulation.device)
    if step is not None and accumulation.is_cuda and triton_usable() and not config.lpips_loss_mult:
        terms = _step_terms_triton(outputs, image, config, background, step)
    else:
        rgb, truth = on_same_background(outputs["rgb"], accumulation, image, background)
        terms = {
            "rgb_loss": rgb_loss(rgb, truth),
            "mask_loss": config.mask_loss_mult * mask_loss(accumulation, image[:, 3:]),
        }
        if step is None:
            return terms
        terms |= _terms_of_field(outputs, config, step)
        if config.lpips_loss_mult:
            network = lpips_vgg(config.vgg_backbone, str(rgb.device))
            patches = patch_lpips_loss(rgb, truth, batch.get("patch_size"), network)
            terms["lpips_loss"] = config.lpips_loss_mult * patches
    if "unseen" in outputs:
        terms["unseen_loss"] = config.unseen_loss_mult * outputs["unseen"]
    if "pose_prior" in outputs:
        terms["pose_prior"] = outputs["pose_prior"]
    if config.depth_loss_mult:
        depth_loss = patch_depth_loss(outputs["depth"], accumulation, batch.get("patch_size"))
        terms["depth_loss"] = config.depth_loss_mult * depth_loss
    return terms


def _terms_of_field(outputs: dict[str, Tensor], config: InstantAvatarModelConfig, step: int) -> dict[str, Tensor]:
    """Terms that hold the field where the image leaves it free."""
    surface = hard_surface_loss(outputs["accumulation"])
    surface = surface + hard_surface_loss(outputs["sample_weights"], outputs["num_samples"])
    outside = opacity_loss(outputs["space_opacity"], outputs["space_is_free"])
    terms = {
        "hard_surface_loss": config.hard_surface_loss_mult * surface,
        "occupancy_loss": config.occupancy_loss_mult * outside,
    }
    if step < config.empty_steps:
        terms["empty_loss"] = config.empty_loss_mult * opacity_loss(outputs["space_opacity"])
    return terms


def _step_terms_triton(
    outputs: dict[str, Tensor],
    image: Float[Tensor, "rays 4"],
    config: InstantAvatarModelConfig,
    background: float | None,
    step: int,
) -> dict[str, Tensor]:
    """The same terms, and those of color and mask, by one kernel."""
    # Triton is imported where it is used: it is no part of PyTorch on every platform.
    from instantavatar_ns.losses_triton import LossWeights, StepPixels, StepSamples, step_losses_triton

    behind = torch.rand_like(outputs["rgb"]) if background is None else background
    is_empty = step < config.empty_steps
    weights = LossWeights(
        1.0,
        config.mask_loss_mult,
        config.hard_surface_loss_mult,
        config.occupancy_loss_mult,
        config.empty_loss_mult if is_empty else 0.0,
    )
    names = ("sample_weights", "num_samples", "space_opacity", "space_is_free")
    terms = step_losses_triton(
        StepPixels(outputs["rgb"], outputs["accumulation"], image, behind),
        StepSamples(*(outputs[name] for name in names)),
        weights,
    )
    found: dict[str, Tensor] = dict(
        zip(("rgb_loss", "mask_loss", "hard_surface_loss", "occupancy_loss", "empty_loss"), terms, strict=True)
    )
    if not is_empty:
        del found["empty_loss"]
    return found


def rgb_loss(rgb: Float[Tensor, "rays 3"], truth: Float[Tensor, "rays 3"]) -> Float[Tensor, ""]:
    """Mean squared difference between colours on the same background.

    Args:
        rgb: Rendered colours, 0 to 1.
        truth: Colours of the image, 0 to 1.
    """
    return F.mse_loss(rgb, truth)


def mask_loss(accumulation: Float[Tensor, "rays 1"], mask: Float[Tensor, "rays 1"]) -> Float[Tensor, ""]:
    """Mean squared difference between opacity and mask.

    Args:
        accumulation: Rendered opacity, 0 to 1.
        mask: 1 on the person, 0 beside.
    """
    return F.mse_loss(accumulation, mask)


def hard_surface_loss(opacity: Float[Tensor, "*n"], count: Num[Tensor, "1"] | None = None) -> Float[Tensor, ""]:
    """Prior that opacities are 0 or 1 (eq. 12), -log(e^-a + e^(a-1)).

    Shifted so that its minimum is 0; 0 for empty input.

    Args:
        opacity: Of rays or samples.
        count: How many there are, if the others are zeros that fill a buffer; at most as many as it holds.
    """
    opacity = opacity.clamp(0, 1)
    prior = _HARD_SURFACE_MINIMUM - torch.log(torch.exp(-opacity) + torch.exp(opacity - 1))
    if count is None:
        return prior.sum() / max(prior.numel(), 1)
    return prior.sum() / count.clamp(1, max(prior.numel(), 1))[0]


def opacity_loss(opacity: Float[Tensor, "points"], where: Bool[Tensor, "points"] | None = None) -> Float[Tensor, ""]:
    """Opacity at points in space that should be empty, averaged over all points.

    Args:
        opacity: Of random canonical points.
        where: Those that should be empty, such as those outside the occupied cells; by default all.
    """
    return (opacity if where is None else opacity * where).mean()


def as_patches(
    values: Float[Tensor, "rays channels"], size: int | None, smallest: int = 1
) -> Float[Tensor, "patches size size channels"]:
    """Rays of patches as the data manager draws them, patch by patch and row by row, as images.

    Args:
        values: Of the rays.
        size: Edge of a patch, pixels; None if the rays are single ones.
        smallest: Smallest size that will do.

    Raises:
        InputError: The rays are single ones, or the patches too small.
    """
    if size is None or size < smallest:
        found = "single pixels" if size is None else f"{size}"
        raise InputError(
            "--pipeline.datamanager.sampling",
            f"expected patches of at least {smallest} pixels for the losses on patches, found {found}",
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
    images = [as_patches(colors, size, _VGG_SMALLEST).movedim(-1, 1) for colors in (rendered, truth)]
    return network(*images, normalize=True).sum()


def patch_depth_loss(
    depth: Float[Tensor, "rays 1"], accumulation: Float[Tensor, "rays 1"], size: int | None
) -> Float[Tensor, ""]:
    """Mean distance of depth from the patch's average, metres: against specks before or behind the person.

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
