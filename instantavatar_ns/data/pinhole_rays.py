"""Rays of pinhole cameras by a few operations; nerfstudio's own generator serves any camera and makes hundreds."""

from __future__ import annotations

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor


def pinhole_directions(
    x: Float[Tensor, "*#rays"], y: Float[Tensor, "*#rays"], camera_to_world: Float[Tensor, "3 4"]
) -> Float[Tensor, "*rays 3"]:
    """Directions in the world of points of an image, as long as their part along the viewing axis is one.

    Args:
        x: Distance to the right of the principal point, over the focal length.
        y: Distance below the principal point, over the focal length.
        camera_to_world: Pose of the camera, which looks along its negative z axis, y up (nerfstudio).
    """
    right, up, back = camera_to_world[:, :3].unbind(dim=1)
    return x[..., None] * right - (y[..., None] * up + back)


def pinhole_image(camera: Cameras) -> tuple[Float[Tensor, "1 3"], Float[Tensor, "height width 3"]] | None:
    """Where the rays through the middles of a camera's pixels start, and their directions, unit vectors.

    The host reads what kind of camera it is, and the image's size, once.

    Args:
        camera: The camera, or several, of which the first is taken.

    Returns:
        None where it is no pinhole camera, or a distorted one.
    """
    facts = [fact.reshape(-1)[:1].long() for fact in (camera.camera_type, camera.width, camera.height)]
    if camera.distortion_params is not None:
        facts.append((camera.distortion_params.view(-1, camera.distortion_params.shape[-1])[0] != 0).long())
    kind, width, height, *distortion = torch.cat(facts).tolist()
    if kind != CameraType.PERSPECTIVE.value or any(distortion):
        return None
    fx, fy, cx, cy = (value.reshape(-1)[0] for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    camera_to_world = camera.camera_to_worlds.view(-1, 3, 4)[0]
    x = (torch.arange(width, device=camera.device) + (0.5 - cx)) / fx
    y = (torch.arange(height, device=camera.device) + (0.5 - cy)) / fy
    directions = pinhole_directions(x, y[:, None], camera_to_world)
    return camera_to_world[None, :, 3], directions / directions.norm(dim=-1, keepdim=True)
