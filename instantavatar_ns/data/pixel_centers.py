"""Pixel centers: data sets count the center of the top-left pixel as (0, 0), as OpenCV does, nerfstudio as (0.5, 0.5).

InstantAvatar's release, Anim-NeRF, OpenDR (PeopleSnapshot's fits and its camera.pkl) and pose estimators count as
OpenCV. Every camera matrix in this package is OpenCV's until `nerfstudio_principal_points` hands it to nerfstudio.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def resize_intrinsics(intrinsics: Float[Tensor, "*#cameras 3 3"], scale_x: float, scale_y: float) -> Tensor:
    """Camera matrices [*cameras, 3, 3] of resized images, pixel centers as OpenCV's before and after.

    The image's edges stay where they are: its left edge lies at -0.5 before and after.

    Args:
        intrinsics: Camera matrices, pixels.
        scale_x: New width divided by the old one.
        scale_y: New height divided by the old one.
    """
    scale = intrinsics.new_tensor([scale_x, scale_y])
    result = intrinsics.clone()
    result[..., :2, :] = intrinsics[..., :2, :] * scale[:, None]
    result[..., :2, 2] = (intrinsics[..., :2, 2] + 0.5) * scale - 0.5
    return result


def nerfstudio_principal_points(intrinsics: Float[Tensor, "*#cameras 3 3"]) -> Float[Tensor, "*#cameras 2"]:
    """Principal points cx, cy in pixels, as nerfstudio counts them, of camera matrices as OpenCV counts."""
    return intrinsics[..., :2, 2] + 0.5
