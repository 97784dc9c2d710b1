"""Image metrics of the published tables (InstantAvatar section 4): whole image, white background, 8-bit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from nerfstudio.models.base_model import Model
from nerfstudio.utils import colormaps
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from torch import Tensor, nn

from instantavatar_ns.backgrounds import blend
from instantavatar_ns.utils.later_imports import torchmetrics_of_images
from instantavatar_ns.utils.perceptual import lpips
from instantavatar_ns.utils.replaced import replaced

_WRITERS, _MOST_WAITING = 4, 32  # threads that write images, and images that wait for them


@contextmanager
def noting_image_metrics(model: Model, folder: Path | None = None) -> Iterator[list[dict[str, float]]]:
    """Collect the metrics of each image that is evaluated meanwhile; nerfstudio gives their averages only.

    Args:
        model: Evaluates the images.
        folder: Where to write the images under nerfstudio's names, in threads: it would wait for each of them.
    """
    noted: list[dict[str, float]] = []
    writes: deque[Future[None]] = deque()
    evaluate = model.get_image_metrics_and_images

    with ThreadPoolExecutor(_WRITERS) as pool:

        def evaluate_and_note(outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> tuple[dict, dict]:
            metrics, images = evaluate(outputs, batch)
            if folder is not None:
                for name, image in images.items():
                    path = folder / f"eval_{name}_{len(noted):04d}.png"
                    writes.append(pool.submit(_write_png, quantise_to_bytes(image), path))
                while len(writes) > _MOST_WAITING:
                    writes.popleft().result()
            noted.append(dict(metrics))  # a copy, as nerfstudio adds to it
            return metrics, images

        with replaced(model, "get_image_metrics_and_images", evaluate_and_note):
            yield noted
        for write in writes:
            write.result()  # raises what went wrong


def _write_png(image: UInt8[np.ndarray, "height width channels"], path: Path) -> None:
    """Write an image, quickly: files are a little larger than they might be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, compress_level=1)


def quantise_to_bytes(image: Float[Tensor, "height width channels"]) -> UInt8[np.ndarray, "height width channels"]:
    """The image as an 8-bit file holds it, in host memory."""
    return (quantise(image) * 255).round().byte().cpu().numpy()


def quantise(image: Float[Tensor, "*image"]) -> Float[Tensor, "*image"]:
    """The image as an 8-bit file would hold it."""
    return (image.clamp(0, 1) * 255).round() / 255


def compare_images(
    outputs: dict[str, Tensor], image: Float[Tensor, "height width channels"], lpips_backbone: Path | None
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Metrics of a rendered image, and the images to look at.

    Args:
        outputs: `rgb` on white, `accumulation` and `depth`, [height, width, channels].
        image: The photograph, with opacity, or on white as nerfstudio's datasets may have blended it.
        lpips_backbone: See `image_metrics`.
    """
    rendered, accumulation = outputs["rgb"], outputs["accumulation"]
    truth = blend(image, 1.0) if image.shape[-1] == 4 else image
    images = {
        "img": torch.cat([truth, quantise(rendered)], dim=1),
        "accumulation": colormaps.apply_colormap(accumulation),
        "depth": colormaps.apply_depth_colormap(outputs["depth"], accumulation=accumulation),
    }
    return image_metrics(rendered, truth, lpips_backbone), images


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
    # Imported where it is used: it takes a second, which training need not wait for.
    functions = torchmetrics_of_images()
    images = [quantise(image).moveaxis(-1, 0)[None] for image in (rendered, truth)]
    metrics = {
        "psnr": float(functions.peak_signal_noise_ratio(*images, data_range=1.0)),
        "ssim": float(functions.structural_similarity_index_measure(*images)),
    }
    network = lpips_alex(lpips_backbone, str(images[0].device))
    if network is not None:
        with torch.no_grad():
            metrics["lpips"] = float(network(images[0], images[1], normalize=True))
            metrics["lpips_published"] = float(network(images[0], images[1], normalize=False))
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
    try:
        return lpips("alex", backbone, device)
    except OSError as error:  # urllib's errors: no network
        CONSOLE.print(
            f"[yellow]LPIPS is left out: AlexNet's weights cannot be downloaded ({error}). Give a local file with "
            "--pipeline.model.lpips-backbone (AlexNet's state as torchvision saves it).[/yellow]"
        )
        return None
