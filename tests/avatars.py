"""The free body with its deformer, and poses of it, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import trimesh
from scipy.spatial import KDTree
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_transforms, canonical_vertices, root_space
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer

BETAS = torch.zeros(10)


@dataclass(frozen=True)
class Avatar:
    """A body of mean shape, its canonical vertices [V, 3] and its deformer."""

    body: BodyModel
    vertices: Tensor
    deformer: FastSnarfDeformer


def free_avatar(resolution: tuple[int, int, int] = (128, 128, 32)) -> Avatar:
    """The free body with a deformer of the given resolution."""
    body = load_body_model("free")
    vertices = canonical_vertices(body, BETAS)
    return Avatar(body, vertices, FastSnarfDeformer(vertices, body.skinning_weights, resolution))


def bone_transforms(body: BodyModel, body_pose: Tensor) -> Tensor:
    """Canonical pose to root space [B, 24, 4, 4], of joint rotations [B, 69]; differentiable."""
    still = torch.zeros(len(body_pose), 3, dtype=body_pose.dtype)
    transforms = body.transforms(BETAS, still, body_pose, still)
    return root_space(transforms, canonical_transforms(body, BETAS))[1]


def random_bones(body: BodyModel, count: int, spread: float = 0.35, seed: int = 0) -> Tensor:
    """Bone transforms [count, 24, 4, 4] of poses whose every joint is turned at random, `spread` radians an axis."""
    body_pose = spread * torch.randn(count, 69, generator=torch.Generator().manual_seed(seed))
    return bone_transforms(body, body_pose)


def points_near(vertices: Tensor, count: int, seed: int = 0, spread: float = 0.02) -> Tensor:
    """Random vertices [count, 3], moved by `spread` metres an axis."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(vertices), (count,), generator=generator)
    return vertices[chosen] + spread * torch.randn(count, 3, generator=generator)


def body_density(vertices: Tensor, faces: Tensor) -> Callable[[Tensor], Tensor]:
    """A density as a trained field has it: 300 per metre inside the body and up to a centimetre outside, else 0."""
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    samples, sampled_faces = trimesh.sample.sample_surface(mesh, 20_000, seed=0)
    normals, tree = torch.from_numpy(mesh.face_normals[sampled_faces]).float(), KDTree(samples)
    surface = torch.from_numpy(samples).float()

    def density(points: Tensor) -> Tensor:
        distance, nearest = tree.query(points.numpy(), distance_upper_bound=0.2, workers=2)
        found = torch.from_numpy(nearest < len(surface))
        nearest = torch.from_numpy(nearest).clamp(max=len(surface) - 1)
        behind = ((points - surface[nearest]) * normals[nearest]).sum(dim=-1) < 0
        return 300.0 * (found & (behind | (torch.from_numpy(distance) < 0.01))).float()

    return density
