"""Rendering in buffers of a fixed size: a few launches of Triton kernels, and nothing that the host has to know.

Samples, their canonical roots and the field's values of these lie in buffers whose filling only the device knows. What
does not fit is left out and counted; `StepBuffers` sees to that.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Int32
from torch import Tensor

from instantavatar_ns.rendering.capacity import BufferSizes
from instantavatar_ns.rendering.composite import Pixels
from instantavatar_ns.rendering.composite_triton import composite_triton
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules
from instantavatar_ns.rendering.march_triton import sample_rays_triton
from instantavatar_ns.rendering.ray_points_triton import sample_points_triton


class Rendering(NamedTuple):
    """Pixels, and how many samples and roots they have, or would have in buffers that hold all."""

    pixels: Pixels
    num_samples: Int32[Tensor, "1"]
    num_roots: Int32[Tensor, "1"]


def render_buffered(rays: Rays, pose: RenderPose, avatar: Avatar, rules: SampleRules, sizes: BufferSizes) -> Rendering:
    """Render rays; differentiable with respect to the field, and to the pose where it asks for it."""
    deformer, occupancy, field = avatar
    origins, directions = rays.in_root_space(pose.body)
    origins = origins.expand_as(directions)
    samples = sample_rays_triton(origins, directions, pose.cells, rules.step, rules.stratified, sizes.samples)
    points = sample_points_triton(*rays, samples, pose.body.world_to_root, rules.step)
    roots = deformer.find_correspondences_into(points, pose.skinning, sizes.roots, samples.total, occupancy.binaries[0])
    density, rgb = field(roots.canonical, rules.noise, roots.total)
    pixels = composite_triton(
        density, rgb, roots.starts, roots.counts, samples, rules.step, rules.alpha_threshold, rules.early_stop_eps
    )
    return Rendering(pixels, samples.total, roots.total)
