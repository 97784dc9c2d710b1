"""Images in rounds, front to back: what lies behind the opaque is neither searched nor shaded.

The pixels are those of one round that takes everything, since `SampleRules.early_stop_eps` hides the same samples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from instantavatar_ns.rendering.capacity import BufferSizes
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules
from instantavatar_ns.rendering.rounds_triton import MarchedRays, composite_round, march

ALL = 1 << 30


class ImageRendering(NamedTuple):
    """Pixels as in `composite.Pixels`, and how many samples and roots each round has, or would have."""

    rgb: Float[Tensor, "rays 3"]
    accumulation: Float[Tensor, "rays"]
    depth: Float[Tensor, "rays"]
    counts: Int32[Tensor, "rounds 2"]


@torch.no_grad()
def render_rounds(
    rays: Rays,
    pose: RenderPose,
    avatar: Avatar,
    rules: SampleRules,
    rounds: tuple[int, ...],
    sizes: tuple[BufferSizes, ...],
) -> ImageRendering:
    """Render rays in one pose, without gradient, noise or shifts.

    Args:
        rays: The rays.
        pose: What they see.
        avatar: The person.
        rules: Where samples lie, and which count.
        rounds: Most samples that a ray takes in each round; the last takes what is left.
        sizes: Of each round's buffers. What does not fit is left out, here and in the counts of later rounds.
    """
    deformer, occupancy, field = avatar
    origins, directions = rays.in_root_space(pose.body)
    marched = MarchedRays.at_origins(len(directions), directions.device)
    counts = []
    for limit, size in zip((*rounds[:-1], ALL), sizes, strict=True):
        samples = march(origins, directions, pose.cells, marched, rules.step, rules.early_stop_eps, limit, size.samples)
        roots = deformer.find_correspondences_into(
            samples.points, pose.skinning, size.roots, samples.count, occupancy.binaries[0]
        )
        density, rgb = field(roots.canonical, count=roots.count)
        composite_round(
            density, rgb, roots.first, roots.number, samples, marched,
            rules.step, rules.alpha_threshold, rules.early_stop_eps,
        )  # fmt: skip
        counts += [samples.count, roots.count]
    return ImageRendering(marched.rgb, marched.accumulation, marched.depth, torch.cat(counts).view(-1, 2))
