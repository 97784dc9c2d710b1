"""Camera paths in the JSON that nerfstudio's viewer saves and `ns-render camera-path` films."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor


def static_path(camera: Cameras, num_frames: int) -> Float[Tensor, "frames 4 4"]:
    """A camera that does not move; OpenGL camera-to-world in nerfstudio's world."""
    camera_to_world = torch.eye(4)
    camera_to_world[:3] = camera.camera_to_worlds.reshape(3, 4)
    return camera_to_world.expand(num_frames, 4, 4)


def orbit_path(camera: Cameras, num_frames: int) -> Float[Tensor, "frames 4 4"]:
    """A camera that goes once round the vertical axis through the origin, where the person stands."""
    angles = torch.arange(num_frames) * (2 * math.pi / num_frames)
    turns = torch.eye(4).repeat(num_frames, 1, 1)
    turns[:, 0, 0] = turns[:, 1, 1] = angles.cos()
    turns[:, 1, 0], turns[:, 0, 1] = angles.sin(), -angles.sin()
    return turns @ static_path(camera, num_frames)


def camera_path_json(
    camera: Cameras, camera_to_worlds: Float[Tensor, "frames 4 4"], fps: float, width: int, height: int
) -> dict:
    """Camera path with nerfstudio's time running from 0 to 1.

    Args:
        camera: Gives the field of view.
        camera_to_worlds: One per frame.
        fps: Frames per second.
        width: Of the rendering, pixels.
        height: Of the rendering, pixels.
    """
    num_frames = len(camera_to_worlds)
    focal = float(camera.fy.flatten()[0]) * height / int(camera.height.flatten()[0])
    fov = math.degrees(2 * math.atan(height / 2 / focal))
    frames = [
        {
            "camera_to_world": matrix.flatten().tolist(),
            "fov": fov,
            "aspect": width / height,
            "render_time": index / max(num_frames - 1, 1),
        }
        for index, matrix in enumerate(camera_to_worlds)
    ]
    return {
        "camera_type": "perspective",
        "render_width": width,
        "render_height": height,
        "fps": fps,
        "seconds": num_frames / fps,
        "camera_path": frames,
    }
