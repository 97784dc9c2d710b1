"""A surface as wide as the person's masks.

A camera that looks past the person's edge meets soft density along a long way, and takes it for the person; a surface
that is cut at one density lies inside of that. So it is moved along its normals, everywhere alike, until its
silhouettes cover as much of the training views as their masks.
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
_TRIED = 0.004  # metres: the silhouettes' area is close to linear in the offset
_LEAST, _MOST = -0.004, 0.012  # metres
_SUBPIXEL_BITS = 6

Skin = Callable[[Float[Tensor, "vertices 3"], Float[Tensor, "joints 4 4"]], Float[Tensor, "vertices 3"]]


@torch.no_grad()
def fitted_to_masks(surface: Surface, photographs: Photographs, skin: Skin) -> Surface:
    """Move a surface along its normals until its silhouettes cover as much as the masks.

    Args:
        surface: The canonical surface.
        photographs: Training frames.
        skin: From the canonical pose to the root space of a frame with these bone transforms.
    """
    frames = np.unique(np.linspace(0, len(photographs.images) - 1, _VIEWS).round().astype(int)).tolist()
    wanted = sum(float(photographs.images[frame, ..., 3].float().sum()) / 255 for frame in frames)

    def area(offset: float) -> float:
        vertices = torch.from_numpy(surface.vertices + np.float32(offset) * surface.normals)
        vertices = vertices.to(photographs.bone_transforms.device)
        covered = 0.0
        for frame in frames:
            posed = skin(vertices, photographs.bone_transforms[frame])
            pixels, _ = project(posed, photographs.views, frame)
            size = (photographs.views.height, photographs.views.width)
            covered += silhouette_area(pixels.cpu().numpy(), surface.faces, size)
        return covered

    with CONSOLE.status("Comparing silhouettes with the masks"):
        start, moved = area(0.0), area(_TRIED)
    if moved <= start:
        return surface
    offset = float(np.clip(_TRIED * (wanted - start) / (moved - start), _LEAST, _MOST))
    CONSOLE.log(
        f"The surface covers {start / wanted:.1%} of the masks: it is moved by {1000 * offset:.1f} mm along its normals"
    )
    shift = np.float32(offset)
    return replace(
        surface,
        vertices=surface.vertices + shift * surface.normals,
        dense_points=surface.dense_points + shift * surface.dense_point_normals,
    )


def silhouette_area(
    pixels: Float[ndarray, "vertices 2"], faces: Int[ndarray, "faces 3"], size: tuple[int, int]
) -> float:
    """Area of a closed mesh's silhouette, pixels.

    Args:
        pixels: Of the vertices, the corner of the image at (0, 0).
        faces: Counter-clockwise seen from outside.
        size: Height and width of the image.
    """
    scale = max(1, -(-_LINES // size[0]))
    image = np.zeros((size[0] * scale, size[1] * scale), np.uint8)
    corners = (pixels.astype(np.float64) * scale - 0.5)[faces]
    a, b, c = corners.transpose(1, 0, 2)
    front = np.cross(b - a, c - a) < 0  # rows run downwards
    fixed = np.round(corners[front] * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    for triangle in fixed:
        cv2.fillConvexPoly(image, triangle, (1,), lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    # Pixels that the outline touches are drawn whole; half of it is outside.
    inner = cv2.erode(image, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return (float(image.sum()) + float(inner.sum())) / 2 / scale**2
