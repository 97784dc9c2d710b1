"""The person's silhouettes, and how far from their outlines those of a posed body lie."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.poses import to4x4
from torch import Tensor

from instantavatar_ns.utils.linalg import rigid_inverse
from instantavatar_ns.utils.memory import check_host_memory, roomy_device

_SAME_DIRECTION = 0.8  # cosine between the outlines' normals


@dataclass(frozen=True)
class Silhouettes:
    """Outlines of the person, and the pinhole cameras that saw them.

    Attributes:
        distance: Signed distance to the person, pixels, negative within; on the CPU where all frames do not fit the
            device, to which those of a few frames are copied when they are looked at.
        focal: Focal lengths along x and y, pixels.
        center: Principal points, pixels.
        world_to_camera: From the dataset's world to cameras that look along z, y down.
    """

    distance: Float[Tensor, "frames height width"]
    focal: Float[Tensor, "frames 2"]
    center: Float[Tensor, "frames 2"]
    world_to_camera: Float[Tensor, "frames 4 4"]

    def of(self, frames: slice) -> Silhouettes:
        """Select frames."""
        return Silhouettes(*(value[frames] for value in vars(self).values()))


def pinhole_silhouettes(
    masks: UInt8[Tensor, "frames height width"], cameras: Cameras, world_to_dataset: Float[Tensor, "4 4"]
) -> Silhouettes:
    """Return the silhouettes that nerfstudio's pinhole cameras saw.

    Args:
        masks: Opacity of the person.
        cameras: One for each mask, on any device.
        world_to_dataset: Rigid transform from nerfstudio's world.

    Raises:
        InputError: The host has not the memory for the distances, four bytes a pixel.
    """
    check_host_memory("silhouettes of the training frames", 4 * masks.numel())
    device = cameras.device
    to_camera = rigid_inverse(to4x4(cameras.camera_to_worlds)) @ rigid_inverse(world_to_dataset.to(device))
    opengl_to_opencv = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], device=device))
    focal, center = torch.cat([cameras.fx, cameras.fy], dim=-1), torch.cat([cameras.cx, cameras.cy], dim=-1)
    distance = distance_to_mask(masks)
    return Silhouettes(
        distance.to(roomy_device(distance.nbytes, torch.device(device))), focal, center, opengl_to_opencv @ to_camera
    )


def distance_to_mask(masks: UInt8[Tensor, "frames height width"]) -> Float[Tensor, "frames height width"]:
    """Signed distance of pixels' middles to the outline of what is more than half opaque, pixels, negative within."""

    distance = torch.empty(masks.shape)

    def fill(mask: np.ndarray, result: np.ndarray) -> None:
        person = (mask > 127).astype(np.uint8)
        outside, inside = (cv2.distanceTransform(part, cv2.DIST_L2, 5) for part in (1 - person, person))
        np.copyto(result, np.where(person > 0, 0.5 - inside, outside - 0.5))

    with ThreadPoolExecutor() as pool:  # OpenCV leaves the interpreter's lock
        list(pool.map(fill, masks.cpu().numpy(), distance.numpy()))
    return distance


class Outline(NamedTuple):
    """Points of the body's outlines that have found the person's.

    Attributes:
        frame: Of each point.
        edge: Of the mesh, on whose middle it lies.
        point: Where it is, metres, in the dataset's world.
        slope: Derivative of the distance to the person's outline by the point's position.
        distance: To the person's outline, metres, negative within.
        length: Of the edge, metres.
    """

    frame: Int[Tensor, "points"]
    edge: Int[Tensor, "points"]
    point: Float[Tensor, "points 3"]
    slope: Float[Tensor, "points 3"]
    distance: Float[Tensor, "points"]
    length: Float[Tensor, "points"]


def match_outlines(
    vertices: Float[Tensor, "frames vertices 3"],
    faces: Int[Tensor, "faces 3"],
    edges: Int[Tensor, "edges 2"],
    sides: Int[Tensor, "edges 2"],
    silhouettes: Silhouettes,
    reach: float,
) -> Outline:
    """Find where a body's outlines lie next to the person's: edges between a face that the camera sees and one that it
    does not, whose middle has an outline of the person nearby that runs the same way.

    Args:
        vertices: Of the body in the frames, metres, in the dataset's world.
        faces: Of its mesh.
        edges: Vertices of the edges that two faces share.
        sides: These faces.
        silhouettes: Of the person in the same frames.
        reach: Metres within which outlines belong to each other.
    """
    to_camera = silhouettes.world_to_camera.to(vertices)
    seen_from = to_camera[:, :3, :3] @ vertices.mT + to_camera[:, :3, 3:]  # x, y and z apart: whole rows are read
    corner, *others = (seen_from[:, :, corners] for corners in faces.T)
    normals = _cross(*(other - corner for other in others))
    seen = (torch.stack(normals, dim=1) * corner).sum(dim=1) < 0
    frame, edge = (seen[:, sides[:, 0]] != seen[:, sides[:, 1]]).nonzero(as_tuple=True)
    ends = seen_from.mT[frame[:, None], edges[edge]]
    middle, length = ends.mean(dim=1), (ends[:, 0] - ends[:, 1]).norm(dim=-1)
    normals = torch.stack([part[frame[:, None], sides[edge]] for part in normals], dim=-1)
    outwards = torch.nn.functional.normalize(normals, dim=-1).sum(dim=1)[:, :2]

    depth = middle[:, 2:].clamp_min(1e-3)
    focal = silhouettes.focal.to(depth)[frame]
    pixels, slope = _look_up(
        silhouettes.distance.to(depth.device),
        frame,
        middle[:, :2] / depth * focal + silhouettes.center.to(depth)[frame],
    )
    steepness = slope.norm(dim=-1)
    direction = slope / steepness[:, None].clamp_min(1e-6)
    meters_per_pixel = depth[:, 0] / focal.mean(dim=-1)
    distance = pixels * meters_per_pixel
    same = (torch.nn.functional.normalize(outwards, dim=-1) * direction).sum(dim=-1) > _SAME_DIRECTION
    keep = same & (distance.abs() < reach) & (steepness > 0.5) & (middle[:, 2] > 0.1)
    by_image = direction * focal / depth * meters_per_pixel[:, None]
    along = -(by_image * middle[:, :2]).sum(dim=-1, keepdim=True) / depth
    slope = torch.cat([by_image, along], dim=-1)[keep]
    frame, edge = frame[keep], edge[keep]
    return Outline(
        frame,
        edge,
        vertices[frame[:, None], edges[edge]].mean(dim=1),
        torch.einsum("nrc,nr->nc", to_camera[frame, :3, :3], slope),
        distance[keep],
        length[keep],
    )


def _cross(one: Float[Tensor, "batch 3 n"], other: Float[Tensor, "batch 3 n"]) -> list[Float[Tensor, "batch n"]]:
    """x, y and z of cross products; on a CPU several times faster than with the coordinates side by side."""
    (a, b, c), (x, y, z) = one.unbind(dim=1), other.unbind(dim=1)
    return [b * z - c * y, c * x - a * z, a * y - b * x]


def inner_edges(faces: Int[Tensor, "faces 3"]) -> tuple[Int[Tensor, "edges 2"], Int[Tensor, "edges 2"]]:
    """Edges of a mesh that two faces share: their vertices, and their faces.

    trimesh's `face_adjacency` does the same, but a training would wait most of a second for its import.
    """
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).sort(dim=1).values
    numbers = edges[:, 0] * (faces.max() + 1) + edges[:, 1]
    numbers, order = numbers.sort(stable=True)
    _, place, count = numbers.unique_consecutive(return_inverse=True, return_counts=True)
    first = (count[place] == 2) & (numbers == numbers.roll(-1))
    sides = order.div(3, rounding_mode="floor")
    return edges[order[first]], torch.stack([sides, sides.roll(-1)], dim=1)[first]


def _look_up(
    images: Float[Tensor, "frames height width"], frame: Int[Tensor, "points"], position: Float[Tensor, "points 2"]
) -> tuple[Float[Tensor, "points"], Float[Tensor, "points 2"]]:
    """Values between the pixels of some frames, and their slopes; none outside the image.

    Args:
        images: One value per pixel.
        frame: Of each point.
        position: x and y, pixels, the first pixel's middle at a half.
    """
    height, width = images.shape[1:]
    place = position - 0.5
    limit = place.new_tensor([width - 3, height - 3])
    inside = ((place >= 1) & (place <= limit)).all(dim=-1)
    place = torch.minimum(place.clamp_min(1), limit)
    x, y = place.floor().long().unbind(dim=-1)
    right, down = (place - place.floor()).unbind(dim=-1)

    def pixel(dy: int, dx: int) -> Tensor:
        return images[frame, y + dy, x + dx].to(position)

    value = torch.lerp(torch.lerp(pixel(0, 0), pixel(0, 1), right), torch.lerp(pixel(1, 0), pixel(1, 1), right), down)
    # Over three pixels: the distance is that to whole pixels, and uneven by half of one.
    slope_x = torch.lerp(pixel(0, 2) - pixel(0, -1), pixel(1, 2) - pixel(1, -1), down) / 3
    slope_y = torch.lerp(pixel(2, 0) - pixel(-1, 0), pixel(2, 1) - pixel(-1, 1), right) / 3
    return value, torch.stack([slope_x, slope_y], dim=-1) * inside[:, None]
