"""Number and spread of the training views that saw each vertex of the canonical body."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from instantavatar_ns.body.kinematics import blended_transforms
from instantavatar_ns.utils.linalg import matvec, transform_points

_FLATTEST = 0.25  # cosine between a vertex' normal and its way to the camera, under which it is hardly seen
_CELL = 0.02  # metres on the person that a cell of the depth buffer covers
_BEHIND = 0.02  # metres by which a vertex may lie behind the nearest one around it: the body's own relief ...
_AROUND = 1.5 * _CELL  # ... and so far off to the side, metres, those may lie: a slanted surface falls off meanwhile
_FRAMES_AT_ONCE = 16


@dataclass(frozen=True)
class Coverage:
    """Share and spread of the training views that saw each vertex of a body.

    Attributes:
        share: Share of the frames that see a vertex, neither hidden nor from a flat angle.
        agreement: Length of the mean direction from a vertex to the cameras that see it, in canonical space: 1 where
            all look from one side, about 0.7 where they look from a half circle, 0 where none sees it.
    """

    share: Float[Tensor, "vertices"]
    agreement: Float[Tensor, "vertices"]


@dataclass(frozen=True)
class Views:
    """The cameras of posed frames, as pinholes.

    Attributes:
        camera_to_root: From nerfstudio's camera (x right, y up, -z ahead) to the root space of the frame's pose.
        focal: Focal lengths along x and y, pixels.
        center: Principal points, pixels, the centre of the top-left pixel at (0.5, 0.5).
        width: Of the images, pixels.
        height: Of the images, pixels.
    """

    camera_to_root: Float[Tensor, "frames 4 4"]
    focal: Float[Tensor, "frames 2"]
    center: Float[Tensor, "frames 2"]
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.focal)

    def __getitem__(self, frames: slice) -> Views:
        return Views(self.camera_to_root[frames], self.focal[frames], self.center[frames], self.width, self.height)


def surface_normals(
    vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"]
) -> Float[Tensor, "vertices 3"]:
    """Unit normals of a mesh's vertices: those of its faces, weighted by the faces' angles there, as trimesh does.

    trimesh itself is not used, since a training would wait a second for its import.

    Args:
        vertices: Of the mesh, metres.
        faces: Counter-clockwise seen from outside.
    """
    corners = vertices[faces]
    along = F.normalize(corners.roll(-1, dims=1) - corners, dim=-1)
    angles = (-along * along.roll(1, dims=1)).sum(dim=-1).clamp(-1, 1).arccos()
    of_faces = F.normalize(torch.linalg.cross(along[:, 0], along[:, 1]), dim=-1)
    weighted = angles[..., None] * of_faces[:, None]
    return F.normalize(torch.zeros_like(vertices).index_add_(0, faces.flatten(), weighted.flatten(0, 1)), dim=-1)


@torch.no_grad()
def view_coverage(
    vertices: Float[Tensor, "vertices 3"],
    normals: Float[Tensor, "vertices 3"],
    skinning_weights: Float[Tensor, "vertices joints"],
    bone_transforms: Float[Tensor, "frames joints 4 4"],
    views: Views,
) -> Coverage:
    """Look at the posed body with the camera of every frame.

    A vertex is seen where it faces the camera and nothing nearer lies around it in a coarse depth buffer.

    Args:
        vertices: Canonical body, metres.
        normals: Its unit normals.
        skinning_weights: Its skinning weights; rows sum to 1.
        bone_transforms: From the canonical pose to the root space of each frame.
        views: The cameras.
    """
    seen = torch.zeros_like(vertices[:, 0])
    towards = torch.zeros_like(vertices)
    for start in range(0, len(views), _FRAMES_AT_ONCE):
        frames = slice(start, start + _FRAMES_AT_ONCE)
        transforms = blended_transforms(skinning_weights, bone_transforms[frames])
        rotations = transforms[..., :3]
        posed = transform_points(transforms, vertices)
        posed_normals = F.normalize(matvec(rotations, normals), dim=-1)
        eyes = views.camera_to_root[frames, None, :3, 3]
        to_camera = F.normalize(eyes - posed, dim=-1)
        cosine = (to_camera * posed_normals).sum(dim=-1)
        slope = (1 - cosine.square()).clamp(min=0).sqrt() / cosine.clamp(min=_FLATTEST)
        hidden = _depth_behind(posed, views[frames]) > _BEHIND + _AROUND * slope
        visible = ((cosine > _FLATTEST) & ~hidden).to(seen)
        # Rotations are blends, so their transposes turn back by nearly their inverses.
        canonical = F.normalize((rotations.transpose(-1, -2) @ to_camera[..., None])[..., 0], dim=-1)
        seen += visible.sum(dim=0)
        towards += (visible[..., None] * canonical).sum(dim=0)
    return Coverage(seen / max(len(views), 1), towards.norm(dim=-1) / seen.clamp(min=1.0))


def _depth_behind(posed: Float[Tensor, "frames vertices 3"], views: Views) -> Float[Tensor, "frames vertices"]:
    """Distance by which vertices lie behind the nearest one around them, metres."""
    rotation, origin = views.camera_to_root[:, None, :3, :3], views.camera_to_root[:, None, :3, 3]
    in_camera = (rotation.transpose(-1, -2) @ (posed - origin)[..., None])[..., 0]
    depth = -in_camera[..., 2]
    flipped = in_camera[..., :2] * in_camera.new_tensor([1.0, -1.0])
    pixels = flipped / depth.clamp(min=1e-3)[..., None] * views.focal[:, None] + views.center[:, None]
    cell = (_CELL * views.focal / depth.mean(dim=1, keepdim=True)).clamp(min=1.0)  # pixels
    # As many cells as the images have pixels at most: how many there are must not depend on values on the device.
    column = (pixels[..., 0] / cell[:, :1]).long().clamp(0, views.width - 1)
    row = (pixels[..., 1] / cell[:, 1:]).long().clamp(0, views.height - 1)
    index = row * views.width + column
    nearest = torch.full((len(posed), views.height * views.width), torch.inf, device=posed.device)
    nearest = nearest.scatter_reduce(1, index, depth, "amin").view(-1, 1, views.height, views.width)
    nearest = -F.max_pool2d(-nearest, 3, stride=1, padding=1)
    return depth - nearest.flatten(1).gather(1, index)
