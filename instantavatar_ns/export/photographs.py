"""Colours of the surface as the photographs show them: an average over the training views that see a place.

The field's colours are compromises between all samples along all rays; at one depth they are grainier and paler than
what the photographs agree on. A view counts where the surface faces its camera, where nothing nearer hides it, and
inside the person's mask. Views that disagree with the others, as where a pose is off or a shadow falls, count little.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import track
from torch import Tensor

from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.unseen.coverage import Views

_MOST_VIEWS = 48  # of those there are, evenly: more change nothing that shows
_FLATTEST = 0.3  # cosine between a surface's normal and its way to the camera from which on a view counts
_SQUARENESS = 2.0  # exponent of what the cosine is above that
_POINTS_OF_DEPTH = 400_000  # of the surface, which draw the depth buffer
_POINTS_PER_CELL = 6.0  # of it, on average, so that it has hardly any holes
_BEHIND = 0.012  # metres by which a place may lie behind the depth buffer: errors of pose, and the buffer's own relief
_OUTLYING = 0.06  # difference from the mean colour, 0 to 1, at which a view counts half
_ROUNDS = 3  # of leaving out what lies far from the mean
_PLACES_AT_A_TIME = 1 << 17


@dataclass(frozen=True)
class Photographs:
    """Training frames with their cameras and poses.

    Attributes:
        images: Colours and mask, 0 to 255.
        views: The cameras.
        bone_transforms: From the canonical pose to the root space of each frame.
    """

    images: UInt8[Tensor, "frames height width 4"]
    views: Views
    bone_transforms: Float[Tensor, "frames joints 4 4"]

    @classmethod
    @torch.no_grad()
    def of_training(cls, dataset: AvatarDataset, model: InstantAvatarModel) -> Photographs:
        """Read some of the frames that a model was trained on, evenly spread, in their corrected poses.

        Args:
            dataset: All of them.
            model: The trained model.

        Raises:
            InputError: A frame or its mask cannot be read.
        """
        count = min(len(dataset), _MOST_VIEWS)
        chosen = torch.linspace(0, len(dataset) - 1, count).round().long()
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(dataset.get_numpy_image, chosen.tolist()))
        cameras = dataset.cameras[chosen].to(model.device)
        assert cameras.metadata is not None
        bodies = [model.poses.frame(row) for row in cameras.metadata["pose_id"].flatten().tolist()]
        last_row = cameras.camera_to_worlds.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(count, 1, 4)
        views = Views(
            torch.stack([body.world_to_root for body in bodies])
            @ torch.cat([cameras.camera_to_worlds, last_row], dim=1),
            focal=torch.cat([cameras.fx, cameras.fy], dim=1),
            center=torch.cat([cameras.cx, cameras.cy], dim=1),
            width=int(cameras.width[0]),
            height=int(cameras.height[0]),
        )
        bones = torch.stack([body.bone_transforms for body in bodies])
        return cls(torch.from_numpy(np.stack(images)).to(model.device), views, bones)


@dataclass(frozen=True)
class Places:
    """Places on a triangle mesh.

    Attributes:
        corners: Vertices of the triangle that each lies in.
        barycentric: Place in it; rows sum to 1.
    """

    corners: Int[Tensor, "n 3"]
    barycentric: Float[Tensor, "n 3"]

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, rows: slice) -> Places:
        return Places(self.corners[rows], self.barycentric[rows])

    def to(self, device: torch.device | str) -> Places:
        """Return the same on a device."""
        return Places(self.corners.to(device), self.barycentric.to(device))

    def of(self, values: Float[Tensor, "vertices channels"]) -> Float[Tensor, "n channels"]:
        """Values of the vertices, interpolated."""
        corners = (values.index_select(0, corner) for corner in self.corners.unbind(dim=1))
        a, b, c = (of * weight[:, None] for of, weight in zip(corners, self.barycentric.unbind(dim=1), strict=True))
        return a + b + c


@torch.no_grad()
def photographed_colors(
    photographs: Photographs,
    posed: Float[Tensor, "frames vertices 3"],
    faces: Int[Tensor, "faces 3"],
    places: Places,
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Average colours of places on the surface over the photographs that see them.

    Args:
        photographs: Of the person.
        posed: Vertices of the surface in the root space of each photograph, metres.
        faces: Of the surface, counter-clockwise seen from outside.
        places: On the surface.

    Returns:
        Colours, 0 to 1, and how many square views each is the average of; 0 where none sees the place.
    """
    normals = _vertex_normals(posed, faces)
    eyes, depths = [], []
    sparse = places[slice(None, None, max(1, len(places) // _POINTS_OF_DEPTH))]
    for frame in range(len(posed)):
        pixels, depth = project(sparse.of(posed[frame]), photographs.views, frame)
        depths.append(_DepthBuffer.of(pixels, depth, photographs.views))
        eyes.append(photographs.views.camera_to_root[frame, :3, 3])
    # The person's edge mixes with the background.
    opaque = -F.max_pool2d(-photographs.images[..., 3].float() / 255, 3, stride=1, padding=1)
    colors, totals = [], []
    starts = range(0, len(places), _PLACES_AT_A_TIME)
    for start in track(starts, "Taking colours from the photographs", transient=True, console=CONSOLE):
        some = places[slice(start, start + _PLACES_AT_A_TIME)]
        seen = torch.zeros(len(posed), len(some), 3, device=posed.device)
        weights = torch.zeros(len(posed), len(some), device=posed.device)
        for frame, (eye, buffer) in enumerate(zip(eyes, depths, strict=True)):
            points, normal = some.of(torch.cat([posed[frame], normals[frame]], dim=-1)).split(3, dim=-1)
            normal = F.normalize(normal, dim=-1)
            cosine = (F.normalize(eye - points, dim=-1) * normal).sum(dim=-1)
            facing = (cosine > _FLATTEST).nonzero()[:, 0]
            cosine = cosine[facing]
            pixels, depth = project(points[facing], photographs.views, frame)
            grid = (pixels / pixels.new_tensor([photographs.views.width, photographs.views.height])) * 2 - 1
            image = torch.cat([photographs.images[frame, ..., :3].float() / 255, opaque[frame, ..., None]], dim=-1)
            sampled = F.grid_sample(image.permute(2, 0, 1)[None], grid[None, None], align_corners=False)[0, :, 0].T
            square = ((cosine - _FLATTEST) / (1 - _FLATTEST)) ** _SQUARENESS
            seen[frame, facing] = sampled[:, :3]
            weights[frame, facing] = square * sampled[:, 3].square() * ~buffer.hides(pixels, depth, cosine)
        color, total = robust_mean(seen, weights)
        colors.append(color)
        totals.append(total)
    return torch.cat(colors), torch.cat(totals)


def robust_mean(
    colors: Float[Tensor, "frames n 3"], weights: Float[Tensor, "frames n"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Weighted mean over frames in which colours far from it count little, and the sum of the weights.

    Args:
        colors: 0 to 1.
        weights: Not negative.
    """
    trusted = weights
    mean = colors.new_zeros(colors.shape[1:])
    for _ in range(_ROUNDS):
        mean = (trusted[..., None] * colors).sum(dim=0) / trusted.sum(dim=0).clamp(min=1e-6)[:, None]
        distance = (colors - mean).square().sum(dim=-1)
        trusted = weights / (1 + distance / _OUTLYING**2)
    return mean, weights.sum(dim=0)


@dataclass(frozen=True)
class _DepthBuffer:
    """Depth of the nearest surface, in square cells of some pixels.

    Attributes:
        depth: Metres, infinite where there is none.
        cell: Pixels.
        size: Metres that a cell covers on the person.
    """

    depth: Float[Tensor, "rows columns"]
    cell: float
    size: float

    @classmethod
    def of(cls, pixels: Float[Tensor, "n 2"], depth: Float[Tensor, "n"], views: Views) -> _DepthBuffer:
        """Draw points.

        Args:
            pixels: Where they are.
            depth: In front of the camera, metres.
            views: The cameras.
        """
        covered = torch.zeros(views.height, views.width, dtype=torch.bool, device=pixels.device)
        covered.view(-1)[_cells(pixels, 1.0, covered)] = True
        # Points are as dense on the back as on the front.
        cell = max(1.0, (2 * _POINTS_PER_CELL * float(covered.sum()) / len(pixels)) ** 0.5)
        rows, columns = (int(size / cell) + 1 for size in (views.height, views.width))
        buffer = torch.full((rows, columns), torch.inf, device=pixels.device)
        buffer.view(-1).scatter_reduce_(0, _cells(pixels, cell, buffer), depth, "amin")
        return cls(buffer, cell, cell * float(depth.mean() / views.focal.mean()))

    def hides(
        self, pixels: Float[Tensor, "n 2"], depth: Float[Tensor, "n"], cosine: Float[Tensor, "n"]
    ) -> Bool[Tensor, "n"]:
        """Mark points that lie behind the nearest surface.

        Args:
            pixels: Where they are.
            depth: In front of the camera, metres.
            cosine: Between their normals and the ways to the camera.
        """
        nearest = self.depth.view(-1)[_cells(pixels, self.cell, self.depth)]
        slope = (1 - cosine.square()).clamp(min=0).sqrt() / cosine.clamp(min=_FLATTEST)
        return depth > nearest + _BEHIND + 1.5 * self.size * slope


def _cells(pixels: Float[Tensor, "n 2"], cell: float, buffer: Tensor) -> Int[Tensor, "n"]:
    rows, columns = buffer.shape
    column, row = (pixels / cell).long().unbind(dim=-1)
    return row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)


def project(points: Float[Tensor, "n 3"], views: Views, frame: int) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n"]]:
    """Pixels of points, the corner of the image at (0, 0), and their depths, metres.

    Args:
        points: In root space, metres.
        views: The cameras.
        frame: Which of them.
    """
    camera_to_root = views.camera_to_root[frame]
    x, y, z = ((points - camera_to_root[:3, 3]) @ camera_to_root[:3, :3]).unbind(dim=-1)
    depth = (-z).clamp(min=1e-3)
    plane = torch.stack([x / depth, -y / depth], dim=-1)
    return plane * views.focal[frame] + views.center[frame], depth


def _vertex_normals(
    posed: Float[Tensor, "frames vertices 3"], faces: Int[Tensor, "faces 3"]
) -> Float[Tensor, "frames vertices 3"]:
    """Unit normals, averaged over the triangles around each vertex by their areas."""
    a, b, c = (posed[:, faces[:, corner]] for corner in range(3))
    across = torch.cross(b - a, c - a, dim=-1)
    normals = torch.zeros_like(posed)
    for corner in range(3):
        normals.index_add_(1, faces[:, corner], across)
    return F.normalize(normals, dim=-1)
