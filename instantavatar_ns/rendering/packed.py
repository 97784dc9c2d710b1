"""Rendering with tensors as long as there are samples: PyTorch, and nerfacc's CUDA functions where they can be used.

The reference of `buffered`, and the path of CPUs. On a GPU the numbers of samples and of roots block the host.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from nerfacc import accumulate_along_rays
from torch import Tensor

from instantavatar_ns.deformer.search import PosedSkinning
from instantavatar_ns.rendering.composite import Pixels, sample_weights
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules
from instantavatar_ns.rendering.march import sample_rays


def render_packed(rays: Rays, pose: RenderPose, avatar: Avatar, rules: SampleRules) -> Pixels:
    """Render rays; differentiable with respect to the field, and to the pose if it requires gradients.

    Args:
        rays: In the world.
        pose: The pose that they see.
        avatar: The canonical person.
        rules: Places of the samples, noise and cut-offs.
    """
    num_rays = len(rays.directions)
    origins, directions = rays.in_root_space(pose.body)
    origins = origins.expand_as(directions)
    samples = sample_rays(origins, directions, pose.cells, rules.step, rules.stratified)
    ray, middles = samples.ray_indices, (samples.t_starts + samples.t_ends) / 2
    density, rgb = shade(rays.points(pose.body, ray, middles), pose.skinning, avatar, rules.noise)
    if rules.alpha_threshold:
        alpha = -torch.expm1(-density * (samples.t_ends - samples.t_starts))
        density = torch.where(alpha < rules.alpha_threshold, 0.0, density)
    weights, transmittance = sample_weights(samples, density, num_rays)
    if rules.early_stop_eps:
        weights = torch.where(transmittance < rules.early_stop_eps, 0.0, weights)
    return Pixels(
        rgb=accumulate_along_rays(weights, rgb, ray, num_rays),
        accumulation=accumulate_along_rays(weights, None, ray, num_rays)[:, 0],
        depth=accumulate_along_rays(weights, middles[:, None], ray, num_rays)[:, 0],
        weights=weights,
    )


def shade(
    points: Float[Tensor, "n 3"], skinning: PosedSkinning, avatar: Avatar, noise: float = 0.0
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
    """Density and colour of posed points: those of the densest of each point's canonical roots.

    Args:
        points: In the root space of the pose, metres.
        skinning: The pose, for the search of roots.
        avatar: The canonical person.
        noise: Standard deviation of noise on the raw density.

    Returns:
        Density, 1/metres, and colour, 0 to 1; both are 0 for points without a root in an occupied cell.
    """
    roots = avatar.deformer(points, skinning)
    # Reads the number of roots that are left on the host; dropping the others saves most of the field's work.
    keep = avatar.occupancy.occupied(roots.canonical.detach())
    canonical, point = roots.canonical[keep], roots.point[keep]
    root_density, root_rgb = avatar.field(canonical, noise)
    chosen = is_densest_root(root_density.detach(), point, len(points)).to(root_density.dtype)
    density = root_density.new_zeros(len(points)).index_add(0, point, root_density * chosen)
    return density, root_rgb.new_zeros(len(points), 3).index_add(0, point, root_rgb * chosen[:, None])


def is_densest_root(
    density: Float[Tensor, "roots"], point: Int[Tensor, "roots"], num_points: int
) -> Bool[Tensor, "roots"]:
    """Mark the densest root of each point; of equals, the last.

    Args:
        density: Of the roots, 1/metres.
        point: Index of each root's point.
        num_points: Number of points.
    """
    highest = density.new_full((num_points,), -1.0).scatter_reduce(0, point, density, "amax")
    order = torch.arange(len(point), device=point.device)
    rows = torch.where(density == highest[point], order, -1)
    best = torch.full((num_points,), -1, device=point.device).scatter_reduce(0, point, rows, "amax")
    return best[point] == order
