"""Rays through patches of a frame and their pixels' colors, by one Triton kernel; twin of `FrameStore`'s in torch.

In torch the same is sixty launches, most of them of a few numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from instantavatar_ns.data.cropped_frames import CroppedFrames
from instantavatar_ns.data.pixel_sampling import PixelLists
from instantavatar_ns.kernels.launch import cdiv, launch
from instantavatar_ns.kernels.patch_rays import patch_rays_kernel

_BLOCK = 128


class PatchRays(NamedTuple):
    """Rays through the pixels of patches.

    Attributes:
        image: Colors and opacity, 0 to 1.
        indices: Frame, row and column of the pixels.
        origins: Where rays start, metres, in nerfstudio's world.
        directions: Unit vectors.
        lengths: Of the directions before they were unit vectors, which end on the plane at distance one.
        areas: Of the pixels on the unit sphere, roughly.
    """

    image: Float[Tensor, "rays 4"]
    indices: Int[Tensor, "rays 3"]
    origins: Float[Tensor, "rays 3"]
    directions: Float[Tensor, "rays 3"]
    lengths: Float[Tensor, "rays 1"]
    areas: Float[Tensor, "rays 1"]


def draw_patches_triton(
    frame: Int[Tensor, "1"],
    centers: PixelLists,
    images: CroppedFrames,
    cameras: Cameras,
    size: int,
    shares: Float[Tensor, "patches"],
) -> PatchRays:
    """Make the rays of patches around pixels of a frame.

    Args:
        frame: Index of the frame, on the device.
        centers: Pixels that patches may lie around.
        images: What the frames show.
        cameras: Of the frames, pinhole cameras.
        size: Edge of a patch, pixels.
        shares: Place of each patch's center in the frame's list, 0 to 1, in double precision.
    """
    num_rays = len(shares) * size**2
    image, lengths, areas = (torch.empty(num_rays, width, device=frame.device) for width in (4, 1, 1))
    origins, directions = torch.empty((2, num_rays, 3), device=frame.device)
    indices = torch.empty(num_rays, 3, dtype=torch.long, device=frame.device)
    intrinsics = (value.contiguous() for value in (cameras.fx, cameras.fy, cameras.cx, cameras.cy))
    launch(
        patch_rays_kernel,
        (cdiv(num_rays, _BLOCK),),
        frame,
        shares,
        centers.pixels,
        centers.first,
        centers.end,
        images.layout,
        images.pixels.view(torch.int32),
        *intrinsics,
        cameras.camera_to_worlds.contiguous(),
        image,
        indices,
        origins,
        directions,
        lengths,
        areas,
        num_rays,
        images.height,
        images.width,
        size,
        BLOCK=_BLOCK,
    )
    return PatchRays(image, indices, origins, directions, lengths, areas)
