"""Camera paths in the JSON that nerfstudio's viewer saves and `ns-render camera-path` films."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from jaxtyping import Float
from nerfstudio.cameras.camera_paths import get_path_from_json
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from instantavatar_ns.scripts.framing import whole_person_position
from instantavatar_ns.utils.errors import InputError


def static_path(
    camera: Cameras, points: Float[Tensor, "frames points 3"], aspect: float
) -> Float[Tensor, "frames 4 4"]:
    """A camera that does not move: the given one, moved back as far as it takes to see the whole person all the time.

    Args:
        camera: In nerfstudio's world.
        points: All over the person in every frame.
        aspect: Width of the picture by its height.

    Returns:
        OpenGL camera-to-world matrices.
    """
    return _whole_person_camera(camera, points.flatten(0, 1), aspect).expand(len(points), 4, 4)


def orbit_path(camera: Cameras, points: Float[Tensor, "frames points 3"], aspect: float) -> Float[Tensor, "frames 4 4"]:
    """A camera that goes once round the person in the frames given; see `turning_path`.

    Args:
        camera: In nerfstudio's world.
        points: All over the person in every frame, metres.
        aspect: Width of the picture by its height.

    Returns:
        OpenGL camera-to-world matrices.
    """
    angles = torch.arange(len(points)) * (2 * math.pi / len(points))
    return turning_path(camera, points, aspect, angles)


def turning_path(
    camera: Cameras, points: Float[Tensor, "frames points 3"], aspect: float, angles: Float[Tensor, "frames"]
) -> Float[Tensor, "frames 4 4"]:
    """A camera that goes round the person, always as far away; see `static_path`.

    It turns about the vertical line through the middle of all points: of the person's place, or way.

    Args:
        camera: In nerfstudio's world.
        points: All over the person in every frame, metres.
        aspect: Width of the picture by its height.
        angles: From where the camera is given, counterclockwise seen from above, radians.

    Returns:
        OpenGL camera-to-world matrices.
    """
    axis = points.mean(dim=(0, 1)) * torch.tensor([1.0, 1.0, 0.0])
    turns = torch.eye(4).repeat(len(points), 1, 1)
    turns[:, 0, 0] = turns[:, 1, 1] = angles.cos()
    turns[:, 1, 0], turns[:, 0, 1] = angles.sin(), -angles.sin()
    turns[:, :3, 3] = axis - turns[:, :3, :3] @ axis
    # Turned back, all frames are seen by the first camera.
    turned = (points - turns[:, None, :3, 3]) @ turns[:, :3, :3]
    return turns @ _whole_person_camera(camera, turned.flatten(0, 1), aspect)


def _whole_person_camera(camera: Cameras, points: Float[Tensor, "n 3"], aspect: float) -> Float[Tensor, "4 4"]:
    camera_to_world = torch.eye(4)
    camera_to_world[:3] = camera.camera_to_worlds.reshape(3, 4)
    slope = _half_height(camera)
    camera_to_world[:3, 3] = whole_person_position(camera_to_world, (slope * aspect, slope), points)
    return camera_to_world


def _half_height(camera: Cameras) -> float:
    """Tangent of half the vertical field of view."""
    return int(camera.height.flatten()[0]) / 2 / float(camera.fy.flatten()[0])


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
    fov = math.degrees(2 * math.atan(_half_height(camera)))
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


def read_camera_path(path: Path) -> dict:
    """Read and check a camera path that nerfstudio's viewer saved, in the form that `ns-render camera-path` takes.

    Raises:
        InputError: The file is missing, damaged, no camera path, or of a kind that one rendering a frame cannot show.
    """
    advice = "Save a path in the Render tab of nerfstudio's viewer, and give the .json file"
    if not path.is_file():
        raise InputError(path, "expected a camera path, static or orbit, found no such file", advice)
    try:
        content = json.loads(path.read_text(encoding="utf8"))
        get_path_from_json(content)
        for frame in content["camera_path"]:
            # nerfstudio makes integers of a matrix that is written without a point, and cannot render these.
            frame["camera_to_world"] = [float(value) for value in frame["camera_to_world"]]
        frames, seconds = content["camera_path"], float(content["seconds"])
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(path, f"expected a camera path of nerfstudio's viewer ({reason})", advice) from error
    if not frames or not seconds > 0:
        raise InputError(
            path, "expected a camera path with frames, found none", "Add keyframes to it and save it again"
        )
    kind = str(content.get("camera_type", "perspective")).lower()
    if kind in ("omnidirectional", "vr180"):
        raise InputError(path, f"expected one camera a frame, found {kind} for two eyes", "Render it with ns-render")
    if content.get("crop") is not None:
        raise InputError(
            path, "expected a camera path without crop, found one", "Switch the crop off and save it again"
        )
    return content


def film_motion(content: dict, num_poses: int, fps: float, loops: bool) -> dict:
    """A camera path that shows a motion at its own speed, one pose a frame, unless it has times of its own.

    Times of its own are those that differ from frame to frame: the viewer writes the same one into all frames where no
    keyframe sets a time. A motion that is over before the path holds its last pose, or starts again if it loops; one
    that is longer is cut.

    Args:
        content: The path, as `read_camera_path` returns it.
        num_poses: Frames of the motion, `fps` of them a second.
        fps: Frames per second of the video.
        loops: Whether the motion can start again.
    """
    frames = content["camera_path"]
    times = [frame.get("render_time") for frame in frames]
    # Splines through equal times differ by rounding.
    if None in times or max(times) - min(times) < 1e-6:
        rows = [index % num_poses if loops else min(index, num_poses - 1) for index in range(len(frames))]
        times = [row / max(num_poses - 1, 1) for row in rows]
    timed = [{**frame, "render_time": time} for frame, time in zip(frames, times, strict=True)]
    return {**content, "fps": fps, "seconds": len(frames) / fps, "camera_path": timed}
