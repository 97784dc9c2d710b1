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
    points = rays.points(pose.body, samples.ray_indices, samples.t_starts + rules.step / 2)
    roots = deformer.find_correspondences_into(points, pose.skinning, sizes.roots, samples.count, occupancy.binaries[0])
    density, rgb = field(roots.canonical, rules.noise, roots.count)
    pixels = composite_triton(
        density, rgb, roots.first, roots.number, samples, rules.step, rules.alpha_threshold, rules.early_stop_eps
    )
    return Rendering(pixels, samples.count, roots.count)
