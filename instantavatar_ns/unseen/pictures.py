"""Pictures of what no training view shows: a folder of views to fill, and the filled ones as targets of training.

FOLDER/
  cameras.npz     intrinsic (3,3), extrinsics (views,4,4) canonical space to camera in OpenCV's axes, height, width,
                  depths (views,height,width) along the viewing axis in metres, 0 where there is nobody
  views/00.png    the person in the canonical pose on white, as trained
  masks/00.png    white where it shows what no training view saw
  filled/00.png   the same view with those pixels filled, by whatever makes pictures; those that are missing are
                  left to the colours carried on
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor, nn

from instantavatar_ns.data.images import read_rgb
from instantavatar_ns.unseen.prior import Field
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import written_whole
from instantavatar_ns.utils.npz import read_npz

# Fill the white pixels of a mask in a view; other pixels of what is returned are not used.
Completer = Callable[[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]], np.ndarray]

_ADVICE = "Write the views with instant-avatar unseen-views, and put the filled ones into filled/, under their names"
_FLATTEST = 0.3  # cosine between surface and way to the camera, under which a view's pixel tells nothing
_OUTSIDE, _INSIDE = 0.004, 0.02  # metres before and behind the surface to which a pixel gives its colour
_WEIGHT = 0.1  # beside the prior's terms, which are means over a space of which colours fill about as much


class UnseenView:
    """One view of the canonical person, and which of its pixels show what was not seen.

    Args:
        rgb: The view on white.
        mask: Pixels to fill.
        depth: Along the viewing axis, metres; 0 where there is nobody.
        canonical_to_camera: OpenCV's axes.
    """

    def __init__(
        self,
        rgb: UInt8[np.ndarray, "height width 3"],
        mask: Bool[np.ndarray, "height width"],
        depth: Float[np.ndarray, "height width"],
        canonical_to_camera: Float[np.ndarray, "4 4"],
    ) -> None:
        self.rgb, self.mask, self.depth, self.canonical_to_camera = rgb, mask, depth, canonical_to_camera

    def surface(self, intrinsic: Float[np.ndarray, "3 3"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Look at the surface through each pixel.

        Args:
            intrinsic: Of the camera.

        Returns:
            Canonical points [height, width, 3], metres, the rays' directions there [height, width, 3], unit vectors,
            and the cosines of surface and ray [height, width].
        """
        height, width = self.depth.shape
        pixels = np.stack([*np.meshgrid(np.arange(width), np.arange(height)), np.ones((height, width))], axis=-1)
        ahead = pixels @ np.linalg.inv(intrinsic).T
        rotation, translation = self.canonical_to_camera[:3, :3], self.canonical_to_camera[:3, 3]
        points = (ahead * self.depth[..., None] - translation) @ rotation
        directions = ahead / np.linalg.norm(ahead, axis=-1, keepdims=True) @ rotation
        down, right = np.gradient(points, axis=(0, 1))  # across an outline the surface seems to be seen flat
        normals = np.cross(right, down)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True).clip(1e-12)
        return points, directions, np.abs((normals * directions).sum(axis=-1))


def write_views(folder: Path, views: Sequence[UnseenView], intrinsic: Float[np.ndarray, "3 3"]) -> None:
    """Write a folder of views to fill.

    Args:
        folder: To make; must not exist yet.
        views: All of one size.
        intrinsic: Of all, pixels, the middle of the first pixel at 0 (OpenCV).
    """
    with written_whole(folder) as partial:
        for kind in ("views", "masks", "filled"):
            (partial / kind).mkdir(parents=True)
        for number, view in enumerate(views):
            Image.fromarray(view.rgb).save(partial / "views" / f"{number:02d}.png")
            Image.fromarray(view.mask).convert("L").save(partial / "masks" / f"{number:02d}.png")
        height, width = views[0].mask.shape
        np.savez_compressed(
            partial / "cameras.npz",
            intrinsic=intrinsic,
            extrinsics=np.stack([view.canonical_to_camera for view in views]),
            depths=np.stack([view.depth for view in views]).astype(np.float32),
            height=height,
            width=width,
        )


def read_views(folder: Path) -> tuple[list[UnseenView], Float[np.ndarray, "3 3"]]:
    """Read a folder of views to fill, and the cameras' intrinsic matrix.

    Raises:
        InputError: It is not such a folder.
    """
    path = folder / "cameras.npz"
    arrays = read_npz(path, "the cameras of unseen views", _ADVICE)
    names = ("intrinsic", "extrinsics", "depths")
    if missing := [name for name in names if name not in arrays]:
        raise InputError(path, f"expected the cameras of unseen views, found no {missing[0]}", _ADVICE)
    intrinsic, extrinsics, depths = (arrays[name].astype(np.float64) for name in names)
    views = []
    for number, (extrinsic, depth) in enumerate(zip(extrinsics, depths, strict=True)):
        rgb, mask = (_read(folder / kind / f"{number:02d}.png", depth.shape) for kind in ("views", "masks"))
        views.append(UnseenView(rgb, mask[..., 0] > 127, depth, extrinsic))
    return views, intrinsic


def _read(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    image = read_rgb(path, size)
    if image.shape[:2] != size:
        message = f"expected a picture of height and width {size}, as its view has, found {image.shape[:2]}"
        raise InputError(path, message, "Scale it, without cutting anything off")
    return image


def fill_views(folder: Path, complete: Completer) -> list[Path]:
    """Fill all views of a folder by a function, and return the paths of the filled ones.

    Args:
        folder: As `write_views` makes it.
        complete: Makes a filled view of a view and the mask of its pixels to fill.

    Raises:
        InputError: It is not such a folder.
    """
    paths = []
    for number, view in enumerate(read_views(folder)[0]):
        filled = np.where(view.mask[..., None], complete(view.rgb.copy(), view.mask.copy()), view.rgb)
        paths.append(folder / "filled" / f"{number:02d}.png")
        with written_whole(paths[-1]) as partial:
            Image.fromarray(filled.astype(np.uint8)).save(partial)
    return paths


class PictureTargets(nn.Module):
    """Colours of canonical points that filled views show.

    Buffers keep their addresses, and the draws happen on the device, so that a CUDA graph can hold the loss.

    Args:
        points: On the surface, canonical, metres.
        directions: Of the rays that found them, unit vectors into the person.
        colors: That they should have, 0 to 1.
        weights: How often to draw them, of any sum.
    """

    points: Float[Tensor, "n 3"]
    directions: Float[Tensor, "n 3"]
    colors: Float[Tensor, "n 3"]
    distribution: Float[Tensor, "n"]

    def __init__(
        self,
        points: Float[Tensor, "n 3"],
        directions: Float[Tensor, "n 3"],
        colors: Float[Tensor, "n 3"],
        weights: Float[Tensor, "n"],
    ) -> None:
        super().__init__()
        cumulative = weights.double().cumsum(0)
        buffers = {
            "points": points,
            "directions": directions,
            "colors": colors,
            "distribution": cumulative / cumulative[-1],
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    @classmethod
    def of_folder(cls, folder: Path) -> PictureTargets:
        """Read the filled views of a folder.

        Raises:
            InputError: It is not such a folder, or has no filled views.
        """
        views, intrinsic = read_views(folder)
        rows: list[tuple[np.ndarray, ...]] = []
        for number, view in enumerate(views):
            path = folder / "filled" / f"{number:02d}.png"
            if not path.is_file():
                continue
            colors = _read(path, (view.mask.shape[0], view.mask.shape[1]))
            points, directions, cosine = view.surface(intrinsic)
            kept = view.mask & (view.depth > 0) & (cosine > _FLATTEST)
            # Where several views show the same, the one that looks at it most squarely counts most.
            rows.append((points[kept], directions[kept], colors[kept] / 255, cosine[kept] ** 4))
        if not sum(len(row[0]) for row in rows):
            raise InputError(folder / "filled", "expected filled views, such as 00.png, found none", _ADVICE)
        return cls(*(torch.from_numpy(np.concatenate(part)).float() for part in zip(*rows, strict=True)))

    def loss(self, field: Field, count: int) -> Float[Tensor, ""]:
        """Squared difference between the field's colours about the surface and the pictures'.

        Args:
            field: The canonical field, differentiable.
            count: Points to draw.
        """
        chosen, offsets = self._draw(count)
        points = self.points[chosen] + offsets[:, None] * self.directions[chosen]
        _, color = field(points)
        return _WEIGHT * (color - self.colors[chosen]).square().sum(dim=-1).mean()

    def _draw(self, count: int) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
        drawn = torch.rand(count, 2, device=self.points.device, dtype=torch.float64)
        chosen = torch.searchsorted(self.distribution, drawn[:, 0].contiguous()).clamp(max=len(self.points) - 1)
        return chosen, (drawn[:, 1] * (_INSIDE + _OUTSIDE) - _OUTSIDE).to(self.points)
