"""Samples of rays in buffers of a fixed size, by a Triton kernel: nothing is read by the host."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.kernels.launch import launch
from instantavatar_ns.kernels.march import traverse_kernel
from instantavatar_ns.occupancy.cells import OccupiedCells
from instantavatar_ns.rendering.march import SampleBuffer

_LANES = 128


@torch.no_grad()
def sample_rays_triton(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    cells: OccupiedCells,
    step: float,
    stratified: bool,
    capacity: int,
) -> SampleBuffer:
    """The samples of `traversal.sample_rays` in a buffer; rays are placed in it in any order.

    Args:
        origins: Where the rays start, metres, in the space of the cells.
        directions: Unit vectors.
        cells: Occupied cells.
        step: Distance between samples, metres.
        stratified: Shift each ray's samples by a random part of a step.
        capacity: Samples that the buffer holds; of those that do not fit, only their number is kept.
    """
    num_rays, device = len(origins), origins.device
    shifts = torch.rand(num_rays, device=device) if stratified else torch.zeros(num_rays, device=device)
    ray_indices = torch.empty(capacity, dtype=torch.int32, device=device)
    t_starts = torch.empty(capacity, device=device)
    starts, counts = torch.empty((2, num_rays), dtype=torch.int32, device=device)
    total = torch.zeros(1, dtype=torch.int32, device=device)
    launch(
        traverse_kernel,
        (num_rays,),
        origins.contiguous(),
        directions.contiguous(),
        shifts,
        cells.aabb,
        cells.aabb if cells.filled is None else cells.filled,
        cells.binaries.view(torch.uint8),
        ray_indices,
        t_starts,
        starts,
        counts,
        total,
        step,
        capacity,
        *cells.binaries.shape,
        LANES=_LANES,
        num_warps=1,
    )
    return SampleBuffer(ray_indices, t_starts, starts, counts, total)
