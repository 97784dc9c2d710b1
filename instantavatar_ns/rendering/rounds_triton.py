"""Samples of an image's rays in rounds, front to back, and their pixels, by Triton kernels. For rendering only.

A round takes the next few samples of every ray that is not opaque yet. Nothing is read by the host: how many samples
a round has, and which rays go on, only the device knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from instantavatar_ns.kernels.image_rounds import composite_round_kernel, march_kernel
from instantavatar_ns.kernels.launch import cdiv, launch
from instantavatar_ns.kernels.usable import interpreting
from instantavatar_ns.occupancy.cells import OccupiedCells
from instantavatar_ns.rendering.composite import most_optical_depth

_RAYS = 32  # a warp
_INTERPRETED_RAYS = 1 << 14  # the interpreter's time goes by operations, not by their size


@dataclass(frozen=True)
class MarchedRays:
    """State of rays between rounds: the next step, and what they have seen so far.

    Attributes:
        rgb: Colour in front of black.
        accumulation: Opacity.
        depth: Sum of the weights times the distances of the samples, metres.
        optical_depth: Minus the logarithm of the transmittance.
        next_step: Number of the step, counted from the ray's origin, that comes next.
    """

    rgb: Float[Tensor, "rays 3"]
    accumulation: Float[Tensor, "rays"]
    depth: Float[Tensor, "rays"]
    optical_depth: Float[Tensor, "rays"]
    next_step: Int32[Tensor, "rays"]

    @classmethod
    def at_origins(cls, num_rays: int, device: torch.device) -> MarchedRays:
        """Rays that have seen nothing yet."""
        sums = torch.zeros(6, _row_length(num_rays), device=device)
        rgb = sums[:3].view(-1)[: 3 * num_rays].view(num_rays, 3)
        next_step = torch.zeros(num_rays, dtype=torch.int32, device=device)
        accumulation, depth, optical_depth = sums[3:, :num_rays]
        return cls(rgb, accumulation, depth, optical_depth, next_step)


@dataclass(frozen=True)
class RoundSamples:
    """Samples of one round. Those of one ray lie together, in order; rows from `total` on hold nothing.

    Attributes:
        points: Their middles, metres, in the space of the cells.
        t_starts: Where each sample's step begins, metres along the ray.
        starts: Row of each ray's first sample.
        counts: Samples of each ray that are in the buffers.
        total: Samples that there are. More than the capacity is an overflow: those beyond it are not in the buffers.
    """

    points: Float[Tensor, "capacity 3"]
    t_starts: Float[Tensor, "capacity"]
    starts: Int32[Tensor, "rays"]
    counts: Int32[Tensor, "rays"]
    total: Int32[Tensor, "1"]


@torch.no_grad()
def march(
    origins: Float[Tensor, "#rays 3"],
    directions: Float[Tensor, "rays 3"],
    cells: OccupiedCells,
    marched: MarchedRays,
    step: float,
    early_stop_eps: float,
    limit: int,
    capacity: int,
) -> RoundSamples:
    """The next samples, unshifted, of rays that still see through; `marched.next_step` moves behind them.

    Args:
        origins: Where the rays start, metres, in the space of the cells; one row where all start together.
        directions: Unit vectors.
        cells: Occupied cells.
        marched: The rounds before.
        step: Distance between samples, metres.
        early_stop_eps: Rays with less of it left take no more samples.
        limit: Most samples of a ray.
        capacity: Samples that the buffers hold; of those that do not fit, only their number is kept.
    """
    num_rays, device = len(directions), directions.device
    starts, counts = torch.empty((2, _row_length(num_rays)), dtype=torch.int32, device=device)[:, :num_rays]
    samples = RoundSamples(
        torch.empty((capacity, 3), device=device),
        torch.empty(capacity, device=device),
        starts,
        counts,
        torch.zeros(1, dtype=torch.int32, device=device),
    )
    rays_each = _rays_each()
    launch(
        march_kernel,
        (cdiv(num_rays, rays_each),),
        origins.contiguous(),
        directions.contiguous(),
        cells.aabb,
        cells.aabb if cells.filled is None else cells.filled,
        cells.binaries.view(torch.uint8),
        marched.optical_depth,
        marched.next_step,
        samples.points,
        samples.t_starts,
        samples.starts,
        samples.counts,
        samples.total,
        step,
        most_optical_depth(early_stop_eps),
        num_rays,
        0 if len(origins) == 1 else 3,
        limit,
        capacity,
        *cells.binaries.shape,
        RAYS=rays_each,
        num_warps=1,
    )
    return samples


@torch.no_grad()
def composite_round(
    density: Float[Tensor, "roots"],
    rgb: Float[Tensor, "roots 3"],
    root_starts: Int32[Tensor, "samples"],
    root_counts: Int32[Tensor, "samples"],
    samples: RoundSamples,
    marched: MarchedRays,
    step: float,
    alpha_threshold: float,
    early_stop_eps: float,
) -> None:
    """Add the densest root of every sample of a round to `marched`.

    Args:
        density: Of the canonical roots, 1/metres.
        rgb: Of the canonical roots, 0 to 1.
        root_starts: Row of each sample's first root.
        root_counts: Roots of each sample; they lie together.
        samples: Of this round.
        marched: Changed in place.
        step: Length of a sample, metres.
        alpha_threshold: Opacity under which a sample counts as empty.
        early_stop_eps: Samples behind less transmittance than this are not seen.
    """
    num_rays, rays_each = len(samples.starts), _rays_each()
    launch(
        composite_round_kernel,
        (cdiv(num_rays, rays_each),),
        density.contiguous(),
        rgb.contiguous(),
        root_starts,
        root_counts,
        samples.t_starts,
        samples.starts,
        samples.counts,
        marched.rgb,
        marched.accumulation,
        marched.depth,
        marched.optical_depth,
        step,
        alpha_threshold,
        most_optical_depth(early_stop_eps),
        num_rays,
        RAYS=rays_each,
        num_warps=1,
    )


def _row_length(numbers: int) -> int:
    """Of rows of 4-byte numbers that all begin at multiples of 16 bytes.

    Triton compiles a kernel anew for rows that do not, and sizes of the viewer's images are any.
    """
    return cdiv(numbers, 4) * 4


def _rays_each() -> int:
    return _INTERPRETED_RAYS if interpreting() else _RAYS
