"""Rendering in buffers of a fixed size: a few launches of Triton kernels, and nothing that the host has to know.

Samples, their canonical roots and the field's values of these lie in buffers whose filling only the device knows. What
does not fit is left out and counted; `BufferSizes.grown` gives buffers that would have held it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from instantavatar_ns.deformer._search_triton import follow_roots, search_roots_triton
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.deformer.search import PosedSkinning
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.occupancy._compositing_triton import Pixels, composite_triton
from instantavatar_ns.occupancy._traversal_triton import sample_rays_triton
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.occupancy.cells import OccupiedCells

_SPARE = 1.25
_MULTIPLE = 1 << 12


@dataclass(frozen=True)
class BufferSizes:
    """How many samples, and roots of them, one rendering may have."""

    samples: int
    roots: int

    def grown(self, num_samples: int, num_roots: int) -> BufferSizes:
        """Sizes that hold so many with something to spare; never smaller than these."""
        return BufferSizes(_with_spare(self.samples, num_samples), _with_spare(self.roots, num_roots))

    def hold(self, num_samples: int, num_roots: int) -> bool:
        """Whether so many fit."""
        return num_samples <= self.samples and num_roots <= self.roots


def _with_spare(size: int, wanted: int) -> int:
    return size if wanted <= size else -(-int(wanted * _SPARE) // _MULTIPLE) * _MULTIPLE


class Rendering(NamedTuple):
    """Pixels, and how many samples and roots they have, or would have in buffers that hold all."""

    pixels: Pixels
    num_samples: Int32[Tensor, "1"]
    num_roots: Int32[Tensor, "1"]


@dataclass(frozen=True)
class SampleRules:
    """Where samples lie, and which of them count.

    Attributes:
        step: Distance between samples, metres.
        stratified: Shift each ray's samples by a random part of a step.
        noise: Standard deviation of noise on the raw density.
        least_alpha: Opacity under which a sample counts as empty.
        least_transmittance: Samples behind less than this are not seen.
    """

    step: float
    stratified: bool = False
    noise: float = 0.0
    least_alpha: float = 0.0
    least_transmittance: float = 0.0


def render_buffered(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    cells: OccupiedCells,
    skinning: PosedSkinning,
    avatar: tuple[FastSnarfDeformer, CanonicalOccupancy, CanonicalField],
    rules: SampleRules,
    sizes: BufferSizes,
) -> Rendering:
    """Render rays that all see one pose; differentiable to the field, and to rays and pose where they ask for it.

    Args:
        origins: Where the rays start, metres, root space.
        directions: Unit vectors.
        cells: Where samples are taken.
        skinning: The pose.
        avatar: Deformer, canonical occupancy (roots in free cells are left out) and field.
        rules: Where samples lie, and which count.
        sizes: Of the buffers.
    """
    deformer, occupancy, field = avatar
    samples = sample_rays_triton(
        origins.detach(), directions.detach(), cells, rules.step, rules.stratified, sizes.samples
    )
    middles = samples.t_starts + rules.step / 2
    points = origins[samples.ray_indices] + directions[samples.ray_indices] * middles[:, None]
    roots = search_roots_triton(
        points.detach(), skinning, deformer.settings, sizes.roots, samples.count, occupancy.binaries[0]
    )
    canonical = roots.canonical
    if torch.is_grad_enabled() and (points.requires_grad or skinning.bone_transforms.requires_grad):
        canonical = follow_roots(roots, points, skinning, deformer.skinning_weights)
    density, rgb = field(canonical, rules.noise, roots.count)
    pixels = composite_triton(
        density, rgb, roots.first, roots.number, samples, rules.step, rules.least_alpha, rules.least_transmittance
    )
    return Rendering(pixels, samples.count, roots.count)
