"""Gaussian splats: their values, their start on a surface, and a pose of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation
from torch import Tensor

from instantavatar_ns.export.surface import Surface

_FLATNESS = 0.2  # of a seed: its extent along the normal by that along the surface
_NEIGHBORS = 3  # whose mean distance is the extent of a seed along the surface
_SEED_OPACITY = 0.9


@dataclass(frozen=True)
class Splats:
    """Gaussian splats whose colours are the same from everywhere.

    Attributes:
        centers: Metres.
        log_scales: Natural logarithms of the standard deviations along the splat's own axes, metres.
        quaternions: Rotations (w, x, y, z) from the splat's own axes, of any length.
        opacity_logits: Opacities at the centers before the logistic function.
        colors: 0 to 1, and a little beyond while they are fitted.
    """

    centers: Float[Tensor, "n 3"]
    log_scales: Float[Tensor, "n 3"]
    quaternions: Float[Tensor, "n 4"]
    opacity_logits: Float[Tensor, "n"]
    colors: Float[Tensor, "n 3"]

    def __len__(self) -> int:
        return len(self.centers)

    def to(self, device: torch.device | str) -> Splats:
        """Return the same on a device, apart from any graph of gradients."""
        return Splats(**{name: value.detach().to(device) for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Return all values by their names."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def axes(self) -> Float[Tensor, "n 3 3"]:
        """Return the splats' axes, as columns as long as the standard deviations."""
        return rotation_matrices(self.quaternions) * self.log_scales.exp()[:, None]


def rotation_matrices(quaternions: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z) of any length but zero; differentiable."""
    w, x, y, z = F.normalize(quaternions, dim=-1).unbind(dim=-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).view(-1, 3, 3)


def surface_points(surface: Surface, count: int) -> tuple[Float[ndarray, "n 3"], Float[ndarray, "n 3"]]:
    """Points all over a surface, and its unit normals there; the same at each call.

    Args:
        surface: The surface.
        count: How many.
    """
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=0)[:2]
    return np.asarray(points, np.float32), np.asarray(mesh.face_normals[faces], np.float32)


def seeds(points: Float[ndarray, "n 3"], normals: Float[ndarray, "n 3"], colors: Float[ndarray, "n 3"]) -> Splats:
    """Flat splats on a surface, as wide as their neighbours are apart.

    Args:
        points: On the surface, metres.
        normals: Of unit length.
        colors: 0 to 1.
    """
    distances = KDTree(points).query(points, k=min(_NEIGHBORS + 1, len(points)), workers=-1)[0]
    widths = distances.reshape(len(points), -1)[:, 1:].mean(axis=1).clip(1e-4)
    # Any direction along the surface will do for the first axis.
    other = np.eye(3)[np.abs(normals).argmin(axis=1)]
    first = np.cross(normals, other)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    axes = np.stack([first, np.cross(normals, first), normals], axis=2)
    scales = widths[:, None] * np.array([1.0, 1.0, _FLATNESS])
    return Splats(
        torch.from_numpy(points).float(),
        torch.from_numpy(np.log(scales)).float(),
        torch.from_numpy(_quaternions(axes)).float(),
        torch.full((len(points),), _SEED_OPACITY).logit(),
        torch.from_numpy(colors).float(),
    )


def moved(splats: Splats, transforms: Float[ndarray, "n 3 4"]) -> Splats:
    """Splats after an affine transform of each: linear blend skinning shears and stretches them a little.

    Args:
        splats: On the CPU.
        transforms: One for each splat.
    """
    linear = transforms[:, :, :3].astype(np.float64)
    axes = linear @ splats.axes().double().numpy()
    variances, rotations = np.linalg.eigh(axes @ axes.transpose(0, 2, 1))
    rotations[:, :, 0] *= np.sign(np.linalg.det(rotations))[:, None]
    centers = np.einsum("nrc,nc->nr", linear, splats.centers.double().numpy()) + transforms[:, :, 3]
    return Splats(
        torch.from_numpy(centers).float(),
        torch.from_numpy(0.5 * np.log(variances.clip(1e-12))).float(),
        torch.from_numpy(_quaternions(rotations)).float(),
        splats.opacity_logits,
        splats.colors,
    )


def _quaternions(rotations: Float[ndarray, "n 3 3"]) -> Float[ndarray, "n 4"]:
    """Quaternions (w, x, y, z) of rotation matrices."""
    return Rotation.from_matrix(rotations).as_quat()[:, [3, 0, 1, 2]]
