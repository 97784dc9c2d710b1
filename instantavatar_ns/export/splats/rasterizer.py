"""Images of Gaussian splats, differentiable with respect to all their values.

The rules are those of "3D Gaussian Splatting for Real-Time Radiance Field Rendering" (arXiv 2308.04079): a splat's
ellipse in the image is that of the projection linearised at its center, widened by `BLUR`; it ends at three standard
deviations; splats are blended from front to back. On a GPU on which gsplat's kernels are compiled already they do it
(their compilation takes minutes, longer than all the rest, and is never begun here); everywhere else it is PyTorch: all
pairs of a splat and a pixel, in the order of the pixels and in each by depth.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from instantavatar_ns.export.splats.cloud import Splats

BLUR = 0.3  # variance that is added in the image, pixels squared
_CUT = 3.0  # standard deviations at which a splat ends
_LEAST_ALPHA, _MOST_ALPHA = 1 / 255, 0.99
_NEAR = 0.01  # metres before the camera
_GSPLAT_LIBRARY = "gsplat_cuda"


@dataclass(frozen=True)
class View:
    """A camera without distortion whose axis meets the middle of the image.

    Attributes:
        world_to_camera: To a camera that looks along +z, y downwards.
        focal: Focal length, pixels.
        width: Of the image, pixels.
        height: Of the image, pixels.
    """

    world_to_camera: Float[Tensor, "4 4"]
    focal: float
    width: int
    height: int


def rasterize(splats: Splats, view: View) -> tuple[Float[Tensor, "height width 3"], Float[Tensor, "height width"]]:
    """Colour in front of black, and opacity, of an image.

    Args:
        splats: In the view's world.
        view: The camera.
    """
    if splats.centers.is_cuda and has_gsplat_kernels():
        return rasterize_gsplat(splats, view)
    return rasterize_torch(splats, view)


def rasterize_torch(
    splats: Splats, view: View
) -> tuple[Float[Tensor, "height width 3"], Float[Tensor, "height width"]]:
    """Rasterize splats in PyTorch, on any device.

    Args:
        splats: In the view's world, metres.
        view: The camera.

    Returns:
        Colour in front of black, and opacity, both 0 to 1.
    """
    places, covariances, depths = project(splats, view)
    order = depths.detach().argsort()
    determinants = covariances[:, 0] * covariances[:, 2] - covariances[:, 1].square()
    conics = torch.stack([covariances[:, 2], -covariances[:, 1], covariances[:, 0]], dim=1) / determinants[:, None]
    opacities = splats.opacity_logits.sigmoid()[:, None]
    # Not by brackets, here and below: their gradient sorts all rows.
    ellipses = torch.cat([places, conics, opacities], dim=1).index_select(0, order)
    with torch.no_grad():
        splat, pixel = _pairs(places[order], covariances[order], depths[order] > _NEAR, view)
        alphas = _alphas(ellipses.index_select(0, splat), pixel, view.width)
        seen = (alphas >= _LEAST_ALPHA).nonzero()[:, 0]
        # Splats are in the order of depth already. Pixels have few bits, which are sorted faster as such.
        pixel, by_pixel = pixel[seen].int().sort(stable=True)
        pixel, splat = pixel.long(), splat[seen[by_pixel]]
    alphas = _alphas(ellipses.index_select(0, splat), pixel, view.width).clamp(max=_MOST_ALPHA)
    weights = (alphas * _transmittance(alphas, pixel))[:, None]
    colors = splats.colors.index_select(0, order.index_select(0, splat))
    blended = colors.new_zeros(view.height * view.width, 4)
    blended = blended.index_add(0, pixel, torch.cat([weights * colors, weights], dim=1))
    image = blended.view(view.height, view.width, 4)
    return image[..., :3], image[..., 3]


def rasterize_gsplat(
    splats: Splats, view: View
) -> tuple[Float[Tensor, "height width 3"], Float[Tensor, "height width"]]:
    """Rasterize splats by gsplat's kernels, on a GPU.

    Args:
        splats: In the view's world, metres.
        view: The camera.

    Returns:
        Colour in front of black, and opacity, both 0 to 1.
    """
    from gsplat import rasterization

    middle = [[view.focal, 0, view.width / 2], [0, view.focal, view.height / 2], [0, 0, 1]]
    colors, alphas, _ = rasterization(
        splats.centers,
        splats.quaternions,
        splats.log_scales.exp(),
        splats.opacity_logits.sigmoid(),
        splats.colors,
        view.world_to_camera[None].to(splats.centers),
        torch.tensor([middle], device=splats.centers.device),
        view.width,
        view.height,
        near_plane=_NEAR,
        eps2d=BLUR,
    )
    return colors[0], alphas[0, ..., 0]


def rasterizer_name(device: torch.device) -> str:
    """Name of the implementation that `rasterize` uses on a device, in words for the user."""
    if device.type != "cuda":
        return "PyTorch on the CPU"
    if has_gsplat_kernels():
        return "gsplat's kernels"
    return "PyTorch on the GPU, as gsplat's kernels are not compiled here"


@cache
def has_gsplat_kernels() -> bool:
    """Return True if gsplat's kernels run on this GPU, as its package or another program compiled them before.

    Nothing is compiled: gsplat itself would do so at its first use without a library that fits, and silently again
    where a compiler's options, such as the GPU's architecture, or the age of its sources have changed since.
    """
    if find_spec("gsplat") is None:
        return False
    if find_spec("gsplat.csrc") is None and not _load_compiled_gsplat():
        return False
    try:
        rasterize_gsplat(_one_splat(), View(torch.eye(4), 1.0, 16, 16))
    except (ImportError, RuntimeError):  # compiled for another PyTorch or GPU
        return False
    return True


def _load_compiled_gsplat() -> bool:
    """Give gsplat the library that it compiled in PyTorch's folder of extensions, if there is one that loads."""
    from torch.utils.cpp_extension import _get_build_directory

    folder = Path(_get_build_directory(_GSPLAT_LIBRARY, False))
    for path in folder.glob(f"{_GSPLAT_LIBRARY}.*"):
        if path.suffix not in (".so", ".pyd"):
            continue
        spec = spec_from_file_location(_GSPLAT_LIBRARY, path)
        assert spec is not None and spec.loader is not None
        try:
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
        except (ImportError, OSError):
            return False
        # Where gsplat looks for kernels that were compiled with the package.
        sys.modules["gsplat.csrc"] = module
        return True
    return False


def _one_splat() -> Splats:
    """A splat on the GPU to try kernels with."""
    center, ones = torch.tensor([[0.0, 0.0, 2.0]], device="cuda"), torch.ones(1, 3, device="cuda")
    return Splats(center, -ones, torch.ones(1, 4, device="cuda"), ones[:, 0], ones)


def project(splats: Splats, view: View) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Project splats into the image.

    Args:
        splats: In the view's world.
        view: The camera.

    Returns:
        Places, pixels from the corner of the image; covariances (xx, xy, yy), pixels squared, `BLUR` included; and
        depths, metres.
    """
    world_to_camera = view.world_to_camera.to(splats.centers)
    x, y, depths = (splats.centers @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]).unbind(dim=-1)
    z = depths.clamp(min=_NEAR)
    zero, scale = torch.zeros_like(z), view.focal / z
    # Derivative of the place by that before the camera.
    jacobians = torch.stack([scale, zero, -scale * x / z, zero, scale, -scale * y / z], dim=-1).view(-1, 2, 3)
    axes = jacobians @ world_to_camera[:3, :3] @ splats.axes()
    covariances = axes @ axes.mT
    covariances = torch.stack([covariances[:, 0, 0] + BLUR, covariances[:, 0, 1], covariances[:, 1, 1] + BLUR], dim=-1)
    places = torch.stack([scale * x + view.width / 2, scale * y + view.height / 2], dim=-1)
    return places, covariances, depths


def _pairs(
    places: Float[Tensor, "n 2"], covariances: Float[Tensor, "n 3"], in_front: Bool[Tensor, "n"], view: View
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """Splats in front, and the pixels of the rectangles around them, in the order of the splats."""
    reach = _CUT * covariances[:, ::2].sqrt()
    first = (places - reach - 0.5).ceil().long().clamp(min=0)
    columns, rows = (places + reach - 0.5).floor().long().unbind(dim=1)
    last = torch.stack([columns.clamp(max=view.width - 1), rows.clamp(max=view.height - 1)], dim=1)
    extent = (last - first + 1).clamp(min=0)
    counts = extent.prod(dim=1) * in_front
    splat = torch.arange(len(places), device=places.device).repeat_interleave(counts)
    number = torch.arange(len(splat), device=places.device)
    begin, columns = counts.cumsum(0) - counts, extent[:, 0]
    table = torch.stack([begin, columns, first[:, 0], first[:, 1]], dim=1)
    begin, columns, left, top = table.index_select(0, splat).unbind(dim=1)
    number = number - begin
    return splat, (top + number // columns) * view.width + left + number % columns


def _alphas(ellipses: Float[Tensor, "pairs 6"], pixel: Int[Tensor, "pairs"], width: int) -> Float[Tensor, "pairs"]:
    """Opacities of splats, given by places, conics and opacities at their centers, at pixels' middles."""
    # Not column by column: the gradient of each would be a table of zeros with that column in it.
    center_x, center_y, xx, xy, yy, opacities = ellipses.unbind(dim=1)
    x, y = pixel % width + 0.5 - center_x, pixel // width + 0.5 - center_y
    distances = xx * x * x + 2 * xy * x * y + yy * y * y
    return opacities * torch.exp(-0.5 * distances) * (distances <= _CUT**2)


def _transmittance(alphas: Float[Tensor, "pairs"], pixel: Int[Tensor, "pairs"]) -> Float[Tensor, "pairs"]:
    """Share of light that comes through the pairs before, in the same pixel."""
    if len(pixel) == 0:
        return alphas
    # Doubles: the sum runs over the whole image, and differences of it count.
    logarithms = torch.log1p(-alphas.double())
    before = logarithms.cumsum(0) - logarithms
    starts: Bool[Tensor, "pairs"] = torch.ones_like(pixel, dtype=torch.bool)
    starts[1:] = pixel[1:] != pixel[:-1]
    numbers = torch.arange(len(pixel), device=pixel.device)
    start = torch.where(starts, numbers, 0).cummax(0).values
    return torch.exp(before - before[start]).to(alphas)
