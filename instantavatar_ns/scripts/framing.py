"""Cameras and the whole person: where a camera has to stand, and in which frames a given one cuts the person."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_vertices
from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.utils.linalg import rigid_inverse

# One vertex of so many stands for its neighbours, a few centimetres around it.
_VERTEX_STRIDE = 4
# Metres that clothes and hair stand out from the body, and share of the picture that stays free at each of its borders.
_CLOTHES, _MARGIN = 0.08, 0.03
_FRAMES_AT_ONCE = 128


@torch.no_grad()
def body_points(model: InstantAvatarModel, poses: PosedBody) -> Float[Tensor, "frames points 3"]:
    """Return points all over the person's body in some poses, metres in nerfstudio's world, on the CPU.

    Args:
        model: The avatar of the person.
        poses: The poses.
    """
    body, betas = model.poses.body, model.subject.poses.betas
    vertices = canonical_vertices(body, betas)[::_VERTEX_STRIDE]
    weights = body.skinning_weights[::_VERTEX_STRIDE]
    parts = []
    for start in range(0, len(poses), _FRAMES_AT_ONCE):
        rows = slice(start, start + _FRAMES_AT_ONCE)
        root_to_world = rigid_inverse(poses.world_to_root[rows].cpu())
        parts.append(skinned(vertices, weights, root_to_world[:, None] @ poses.bone_transforms[rows].cpu()))
    return torch.cat(parts)


def whole_person_position(
    camera_to_world: Float[Tensor, "4 4"], slopes: tuple[float, float], points: Float[Tensor, "n 3"]
) -> Float[Tensor, "3"]:
    """Position from which a camera sees all points, a margin and room for clothes around them.

    The camera keeps its direction. It stays where it is, if it sees everything from there; else it moves back as little
    as possible, and sideways or up and down where it has to. Exact: each side of the picture is a plane through the
    camera, so that each point bounds the position by a linear inequality.

    Args:
        camera_to_world: OpenGL's axes.
        slopes: Tangents of half the horizontal and half the vertical field of view.
        points: Points to be seen, in the same world.
    """
    rotation = camera_to_world[:3, :3].double()
    right, up, back = (points.double() @ rotation).unbind(dim=1)
    place, ahead = camera_to_world[:3, 3].double() @ rotation, -back
    bounds = []
    nearest = -place[2]  # of the camera, along its direction
    for offset, slope in zip((right, up), slopes, strict=True):
        slope = slope * (1 - 2 * _MARGIN)
        room = _CLOTHES * (1 + slope**2) ** 0.5
        low, high = (offset - slope * ahead).max() + room, (offset + slope * ahead).min() - room
        nearest = torch.minimum(nearest, (high - low) / (2 * slope))
        bounds.append((low, high, slope))
    for axis, (low, high, slope) in enumerate(bounds):
        # Within these the points are seen; the middle is the same from any distance.
        if not low + slope * nearest <= place[axis] <= high - slope * nearest:
            place[axis] = (low + high) / 2
    place[2] = -nearest
    return (rotation @ place).to(camera_to_world)


def cut_frames(points: Float[Tensor, "frames points 3"], cameras: Cameras) -> Bool[Tensor, "frames"]:
    """Frames in which the picture's border cuts the body.

    Args:
        points: From `body_points`, one pose a frame.
        cameras: Perspective cameras, one a frame.
    """
    camera_to_worlds = cameras.camera_to_worlds.to(points)
    offsets = (points - camera_to_worlds[:, None, :, 3]) @ camera_to_worlds[:, :, :3]
    depth = -offsets[..., 2]
    columns = cameras.cx + cameras.fx * offsets[..., 0] / depth
    rows = cameras.cy - cameras.fy * offsets[..., 1] / depth
    inside = (depth > 0) & (columns > 0) & (columns < cameras.width) & (rows > 0) & (rows < cameras.height)
    return ~inside.all(dim=1)


def frame_ranges(frames: Bool[Tensor, "frames"]) -> str:
    """Numbers of the marked frames, such as "0 to 4, 9"."""
    before = torch.cat([frames.new_zeros(1), frames[:-1]])
    after = torch.cat([frames[1:], frames.new_zeros(1)])
    starts, ends = ((frames & ~other).nonzero().flatten().tolist() for other in (before, after))
    ranges = zip(starts, ends, strict=True)
    return ", ".join(str(start) if start == end else f"{start} to {end}" for start, end in ranges)
