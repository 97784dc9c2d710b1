"""Rays of pinhole cameras by a few operations; nerfstudio's own generator serves any camera and makes hundreds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor


def pixel_directions(
    columns: Shaped[Tensor, "*#rays"],
    rows: Shaped[Tensor, "*#rays"],
    intrinsics: Float[Tensor, "4"],
    camera_to_world: Float[Tensor, "3 4"],
) -> Float[Tensor, "*rays 3"]:
    """Directions in the world of rays through the middles of pixels, of length one along the viewing axis.

    Args:
        columns: Of the pixels, counted from 0.
        rows: Of the pixels, counted from 0.
        intrinsics: fx, fy, cx, cy, pixels, the middle of the first pixel at a half (nerfstudio).
        camera_to_world: Pose of the camera, which looks along its negative z axis, y up (nerfstudio).
    """
    fx, fy, cx, cy = intrinsics.unbind()
    x, y = (columns + (0.5 - cx)) / fx, (rows + (0.5 - cy)) / fy
    right, up, back = camera_to_world[:, :3].unbind(dim=1)
    return x[..., None] * right - (y[..., None] * up + back)


class PinholeCamera(NamedTuple):
    """A pinhole camera.

    Attributes:
        width: Pixels.
        height: Pixels.
        intrinsics: fx, fy, cx, cy, pixels.
        camera_to_world: Pose, the camera looking along its negative z axis, y up (nerfstudio).
    """

    width: int
    height: int
    intrinsics: Float[Tensor, "4"]
    camera_to_world: Float[Tensor, "3 4"]

    def to(self, device: torch.device) -> PinholeCamera:
        """The same camera on a device."""
        return self._replace(intrinsics=self.intrinsics.to(device), camera_to_world=self.camera_to_world.to(device))

    def rays(self) -> tuple[Float[Tensor, "1 3"], Float[Tensor, "height width 3"]]:
        """Origin of the rays through the middles of the pixels, and their directions, unit vectors."""
        device = self.intrinsics.device
        columns, rows = torch.arange(self.width, device=device), torch.arange(self.height, device=device)
        directions = pixel_directions(columns, rows[:, None], self.intrinsics, self.camera_to_world)
        return self.camera_to_world[None, :, 3], directions / directions.norm(dim=-1, keepdim=True)


def pinhole_camera(camera: Cameras) -> PinholeCamera | None:
    """Return a camera of nerfstudio as a `PinholeCamera`; None where it is distorted or of another kind.

    Blocks the host once, to read the kind of the camera and the size of its image.

    Args:
        camera: The camera, or several, of which the first is taken.
    """
    facts = [fact.reshape(-1)[:1].long() for fact in (camera.camera_type, camera.width, camera.height)]
    if camera.distortion_params is not None:
        facts.append((camera.distortion_params.view(-1, camera.distortion_params.shape[-1])[0] != 0).long())
    kind, width, height, *distortion = torch.cat(facts).tolist()
    if kind != CameraType.PERSPECTIVE.value or any(distortion):
        return None
    intrinsics = torch.cat([value.reshape(-1)[:1] for value in (camera.fx, camera.fy, camera.cx, camera.cy)])
    return PinholeCamera(width, height, intrinsics, camera.camera_to_worlds.view(-1, 3, 4)[0])
