"""Texture coordinates, and the colours that a camera sees at the surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import xatlas
from jaxtyping import Bool, Float, Int, UInt8
from nerfstudio.utils.rich_utils import CONSOLE
from numpy import ndarray
from rich.progress import track
from scipy import ndimage
from torch import Tensor

from instantavatar_ns.export.charts import cut_into_charts
from instantavatar_ns.export.photographs import Places
from instantavatar_ns.export.surface import Surface

# A short ray against the normal: where it starts and ends relative to the surface, metres, and its samples.
_OUTSIDE, _INSIDE, _SAMPLES = 0.004, 0.016, 5
_ALPHA_THRESHOLD = 0.02
_RAYS_AT_A_TIME = 1 << 13
_PADDING = 4  # texels between islands
_SUBTEXEL_BITS = 8
_FIELD_SHARE = 0.3  # square views that the field's colour counts as, beside the photographs'

Shade = Callable[[Float[Tensor, "n 3"]], tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]]
Photographed = Callable[[Places], tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]]


@dataclass(frozen=True)
class UnwrappedSurface:
    """A surface cut open along seams, where vertices are repeated.

    Attributes:
        source: The vertex of the closed surface that each vertex repeats.
        faces: Triangles.
        uv: Texture coordinates from 0 to 1, v upwards from the bottom row of the image.
    """

    source: Int[ndarray, "vertices"]
    faces: Int[ndarray, "faces 3"]
    uv: Float[ndarray, "vertices 2"]


def unwrap(surface: Surface, size: int) -> UnwrappedSurface:
    """Cut a surface into charts, and pack them into a square texture of `size` texels (xatlas).

    Args:
        surface: The surface.
        size: Height and width of the texture, texels.
    """
    pack = xatlas.PackOptions()
    pack.resolution, pack.padding = size, _PADDING
    atlas = xatlas.Atlas()
    with CONSOLE.status("Unwrapping the surface"):
        charts = cut_into_charts(surface)
        atlas.add_uv_mesh(charts.plane.astype(np.float32), charts.faces.astype(np.uint32))
        atlas.generate(pack_options=pack)
    repeated, faces, uv = atlas[0]
    return UnwrappedSurface(charts.source[repeated].astype(np.int32), faces.astype(np.int32), uv.astype(np.float32))


def bake(
    shade: Shade,
    surface: Surface,
    unwrapped: UnwrappedSurface,
    size: int,
    photographed: Photographed | None = None,
) -> UInt8[ndarray, "size size 3"]:
    """Texture of a surface; texels between the islands take the nearest colour, so that no seam shows.

    Args:
        shade: Density, 1/metres, and colour of canonical points.
        surface: The surface.
        unwrapped: Its layout.
        size: Height and width, texels.
        photographed: Colours of places on the surface, 0 to 1, and how many square views each was seen in. The fewer,
            the more of the field's colour is mixed in.
    """
    face, barycentric = rasterise(unwrapped, size)
    covered = face >= 0
    places = Places(
        torch.from_numpy(unwrapped.source[unwrapped.faces[face[covered]]]).long(),
        torch.from_numpy(barycentric[covered]),
    )
    points, normals = (places.of(torch.from_numpy(of)).numpy() for of in (surface.vertices, surface.normals))
    colors, known = surface_colors(shade, points, normals)
    if photographed is not None:
        averages, views = photographed(places)
        field_views = _FIELD_SHARE * torch.from_numpy(known)
        total = views.cpu() + field_views
        mixed = averages.cpu() * views.cpu()[:, None] + torch.from_numpy(colors) / 255 * field_views[:, None]
        mixed = (mixed / total.clamp(min=1e-6)[:, None] * 255).round().byte().numpy()
        colors, known = np.where(total.numpy()[:, None] > 0, mixed, colors), known | (views.cpu().numpy() > 0)
    texture, known_texels = np.zeros((size, size, 3), np.uint8), covered.copy()
    texture[covered], known_texels[covered] = colors, known
    return fill_unknown(texture, known_texels)


@torch.no_grad()
def surface_colors(
    shade: Shade, points: Float[ndarray, "n 3"], normals: Float[ndarray, "n 3"]
) -> tuple[UInt8[ndarray, "n 3"], Bool[ndarray, "n"]]:
    """Colours that a camera in front of the surface sees: those along a short ray inwards, composited.

    Args:
        shade: Density, 1/metres, and colour of canonical points.
        points: On the surface, metres.
        normals: Outwards, of any length.

    Returns:
        Colours, 0 to 255, and whether the ray met anything.
    """
    step = (_OUTSIDE + _INSIDE) / _SAMPLES
    offsets = _OUTSIDE - step * (np.arange(_SAMPLES, dtype=np.float32) + 0.5)
    directions = normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-9)
    colors, seen = [], []
    starts = range(0, len(points), _RAYS_AT_A_TIME)
    for start in track(starts, "Baking the colours", transient=True, console=CONSOLE):
        rows = slice(start, start + _RAYS_AT_A_TIME)
        samples = points[rows, None] + offsets[:, None] * directions[rows, None]
        density, rgb = shade(torch.from_numpy(samples.reshape(-1, 3).astype(np.float32)))
        thickness = density.view(-1, _SAMPLES) * step
        transmittance = torch.exp(-(thickness.cumsum(dim=1) - thickness))
        weights = transmittance * -torch.expm1(-thickness)
        alpha = weights.sum(dim=1, keepdim=True)
        mean = (weights[..., None] * rgb.view(-1, _SAMPLES, 3)).sum(dim=1) / alpha.clamp_min(1e-6)
        colors.append((mean * 255).round().clamp(0, 255).byte().cpu().numpy())
        seen.append((alpha[:, 0] > _ALPHA_THRESHOLD).cpu().numpy())
    return np.concatenate(colors), np.concatenate(seen)


def rasterise(
    unwrapped: UnwrappedSurface, size: int
) -> tuple[Int[ndarray, "size size"], Float[ndarray, "size size 3"]]:
    """The triangle at each texel, -1 where there is none, and the texel's place in it.

    Texels that an edge touches count as covered; they are assigned the nearest place in the triangle.

    Args:
        unwrapped: Layout of the surface.
        size: Height and width, texels.
    """
    texels = unwrapped.uv * size - 0.5
    texels[:, 1] = size - 1 - texels[:, 1]
    face = np.full((size, size), -1, np.int32)
    fixed = np.round(texels * (1 << _SUBTEXEL_BITS)).astype(np.int32)
    for index, triangle in enumerate(fixed[unwrapped.faces]):
        cv2.fillConvexPoly(face, triangle, (index,), lineType=cv2.LINE_8, shift=_SUBTEXEL_BITS)
    rows, columns = np.nonzero(face >= 0)
    a, b, c = (texels[unwrapped.faces[face[rows, columns], corner]].astype(np.float64) for corner in range(3))
    point = np.stack([columns, rows], axis=1)
    area = _cross(b - a, c - a)
    area = np.where(np.abs(area) < 1e-12, 1e-12, area)
    barycentric = np.stack(
        [_cross(b - point, c - point), _cross(c - point, a - point), _cross(a - point, b - point)], 1
    )
    barycentric = (barycentric / area[:, None]).clip(0.0, 1.0)
    places = np.zeros((size, size, 3), np.float32)
    places[rows, columns] = barycentric / barycentric.sum(axis=1, keepdims=True).clip(1e-9)
    return face, places


def fill_unknown(
    texture: UInt8[ndarray, "height width 3"], known: Bool[ndarray, "height width"]
) -> UInt8[ndarray, "height width 3"]:
    """Give every unknown texel the colour of the nearest known one; with none known, nothing changes.

    Args:
        texture: An image.
        known: Texels that have a colour.
    """
    if not known.any():
        return texture
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    assert isinstance(nearest, ndarray)
    return texture[nearest[0], nearest[1]]


def _cross(a: ndarray, b: ndarray) -> ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
