"""A surface as wide as the person's masks.

A camera that looks past the person's edge meets soft density along a long way, and takes it for the person; a surface
that is cut at one density lies inside of that. So it is moved along its normals, everywhere alike, to where its
silhouettes in the training views are most like the masks. (Equal areas would make up for a lost finger by thick legs.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from nerfstudio.utils.rich_utils import CONSOLE
from numpy import ndarray
from torch import Tensor

from instantavatar_ns.export.photographs import Photographs, project
from instantavatar_ns.export.surface import Surface

_VIEWS = 8
_LINES = 1000  # height of the drawn silhouettes, pixels, at least
_OFFSETS = np.arange(-0.002, 0.0101, 0.002)  # metres
_SUBPIXEL_BITS = 6

Skin = Callable[[Float[Tensor, "vertices 3"], Float[Tensor, "joints 4 4"]], Float[Tensor, "vertices 3"]]


@torch.no_grad()
def fitted_to_masks(surface: Surface, photographs: Photographs, skin: Skin) -> Surface:
    """Move a surface along its normals to where its silhouettes are most like the masks.

    Args:
        surface: The canonical surface.
        photographs: Training frames.
        skin: From the canonical pose to the root space of a frame with these bone transforms.
    """
    frames = np.unique(np.linspace(0, len(photographs.images) - 1, _VIEWS).round().astype(int)).tolist()
    masks = [photographs.images[frame, ..., 3].cpu().numpy() / 255 for frame in frames]

    def mismatch(offset: float) -> float:
        vertices = torch.from_numpy(surface.vertices + np.float32(offset) * surface.normals)
        vertices = vertices.to(photographs.bone_transforms.device)
        total = 0.0
        for frame, mask in zip(frames, masks, strict=True):
            posed = skin(vertices, photographs.bone_transforms[frame])
            pixels, _ = project(posed, photographs.views, frame)
            total += float(np.square(silhouette(pixels.cpu().numpy(), surface.faces, mask.shape) - mask).sum())
        return total

    with CONSOLE.status("Comparing silhouettes with the masks"):
        offset = lowest(_OFFSETS, np.array([mismatch(offset) for offset in _OFFSETS]))
    CONSOLE.log(f"The surface is moved by {1000 * offset:.1f} mm along its normals, to fit the masks")
    shift = np.float32(offset)
    return replace(
        surface,
        vertices=surface.vertices + shift * surface.normals,
        dense_points=surface.dense_points + shift * surface.dense_point_normals,
    )


def lowest(places: Float[ndarray, "n"], values: Float[ndarray, "n"]) -> float:
    """Place of the lowest value, between even places by the parabola through it and its neighbors.

    Args:
        places: Ascending, evenly spaced.
        values: There.
    """
    best = int(values.argmin())
    if not 0 < best < len(values) - 1:
        return float(places[best])
    before, here, after = values[best - 1 : best + 2]
    curvature = before - 2 * here + after
    step = 0.5 * (before - after) / curvature if curvature > 0 else 0.0
    return float(places[best] + step * (places[1] - places[0]))


def silhouette(
    pixels: Float[ndarray, "vertices 2"], faces: Int[ndarray, "faces 3"], size: tuple[int, ...]
) -> Float[ndarray, "height width"]:
    """Silhouette of a closed mesh: the share of each pixel that it covers.

    Args:
        pixels: Of the vertices, the corner of the image at (0, 0).
        faces: Counter-clockwise seen from outside.
        size: Height and width of the image.
    """
    scale = max(1, -(-_LINES // size[0]))
    image = np.zeros((size[0] * scale, size[1] * scale), np.uint8)
    corners = (pixels.astype(np.float64) * scale - 0.5)[faces]
    a, b, c = corners.transpose(1, 0, 2)
    (along_x, along_y), (across_x, across_y) = (b - a).T, (c - a).T
    front = along_x * across_y < along_y * across_x  # rows run downwards
    fixed = np.round(corners[front] * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    for triangle in fixed:
        cv2.fillConvexPoly(image, triangle, (1,), lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    # Pixels that the outline touches are drawn whole; half of it is outside.
    inner = cv2.erode(image, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    covered = (image.astype(np.float32) + inner) / 2
    return cv2.resize(covered, (size[1], size[0]), interpolation=cv2.INTER_AREA)
