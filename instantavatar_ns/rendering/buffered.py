"""Rendering in buffers of a fixed size: a few launches of Triton kernels, and nothing that the host has to know.

Samples, their canonical roots and the field's values of these lie in buffers whose filling only the device knows. What
does not fit is left out and counted; `StepBuffers` sees to that.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int32
from torch import Tensor

from instantavatar_ns.rendering.capacity import BufferSizes
from instantavatar_ns.rendering.composite import Pixels
from instantavatar_ns.rendering.composite_triton import composite_triton
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules
from instantavatar_ns.rendering.march_triton import sample_rays_triton
from instantavatar_ns.rendering.ray_points_triton import sample_points_triton


class Rendering(NamedTuple):
    """Pixels, and how many samples and roots they have, or would have in buffers that hold all.

    Attributes:
        pixels: What rays see.
        num_samples: Number of samples.
        num_roots: Number of their roots.
        extra_density: Density, 1/metres, at the extra points.
    """

    pixels: Pixels
    num_samples: Int32[Tensor, "1"]
    num_roots: Int32[Tensor, "1"]
    extra_density: Float[Tensor, "extra"]


def render_buffered(
    rays: Rays,
    pose: RenderPose,
    avatar: Avatar,
    rules: SampleRules,
    sizes: BufferSizes,
    extra: Float[Tensor, "extra 3"] | None = None,
) -> Rendering:
    """Render rays; differentiable with respect to the field, and to the pose where it asks for it.

    Args:
        rays: The rays.
        pose: What they see.
        avatar: The person.
        rules: Where samples lie, and which count.
        sizes: Of the buffers.
        extra: Canonical points whose density is wanted too, by the same evaluation of the field: a second one would
            make a second gradient of the whole table.
    """
    deformer, occupancy, field = avatar
    origins, directions = rays.in_root_space(pose.body)
    origins = origins.expand_as(directions)
    samples = sample_rays_triton(origins, directions, pose.cells, rules.step, rules.stratified, sizes.samples)
    points = sample_points_triton(*rays, samples, pose.body.world_to_root, rules.step)
    num_extra = 0 if extra is None else len(extra)
    roots = deformer.find_correspondences_into(
        points, pose.skinning, sizes.roots, samples.total, occupancy.binaries[0], extra
    )
    quiet = {} if extra is None else {"quiet": num_extra}  # fields that stand in for a trained one need no noise
    density, rgb = field(roots.canonical, rules.noise, roots.total, **quiet)
    pixels = composite_triton(
        density, rgb, roots.starts, roots.counts, samples, rules.step, rules.alpha_threshold, rules.early_stop_eps
    )
    return Rendering(pixels, samples.total, roots.total - num_extra, density[:num_extra])
