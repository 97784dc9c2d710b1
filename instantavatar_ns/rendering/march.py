"""March rays through a grid of occupied cells: nerfacc's CUDA traversal, or its twin in torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Int32
from nerfacc.grid import _ray_aabb_intersect as ray_aabb_intersect_torch
from nerfacc.grid import traverse_grids
from torch import Tensor

from instantavatar_ns.occupancy.cells import OccupiedCells
from instantavatar_ns.rendering.nerfacc_cuda import nerfacc_cuda


class Samples(NamedTuple):
    """Samples of a bundle of rays, packed in the order of the rays and along each ray; nerfacc's convention."""

    ray_indices: Int[Tensor, "samples"]
    t_starts: Float[Tensor, "samples"]
    t_ends: Float[Tensor, "samples"]


@dataclass(frozen=True)
class SampleBuffer:
    """Samples of a bundle of rays in buffers of a fixed size, so that no host needs to know how many there are.

    Attributes:
        ray_indices: Ray of each sample. The samples of one ray lie together, in order.
        t_starts: Where each sample's step begins, metres along the ray.
        starts: Row of each ray's first sample.
        counts: Samples of each ray that are in the buffer.
        total: Samples that there are. More than the capacity is an overflow: those beyond it are not in the buffer.
            Rows from `total` on hold nothing.
    """

    ray_indices: Int32[Tensor, "capacity"]
    t_starts: Float[Tensor, "capacity"]
    starts: Int32[Tensor, "rays"]
    counts: Int32[Tensor, "rays"]
    total: Int32[Tensor, "1"]


@torch.no_grad()
def sample_rays(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    cells: OccupiedCells,
    step: float,
    stratified: bool,
) -> Samples:
    """Equidistant samples in the occupied cells that each ray crosses.

    How many there are is read by the host, since the tensors are as long as there are samples.

    Args:
        origins: Where the rays start, metres, in the space of the cells.
        directions: Unit vectors.
        cells: Occupied cells.
        step: Distance between samples, metres.
        stratified: Shift each ray's samples by a random part of a step.
    """
    if origins.is_cuda and nerfacc_cuda():
        near = torch.zeros_like(origins[:, 0])
        if stratified:
            near = near + torch.rand_like(near) * step
        intervals, samples = traverse_grids(
            origins, directions, cells.binaries[None], cells.aabb[None], near_planes=near, step_size=step
        )
        assert samples.ray_indices is not None
        return Samples(samples.ray_indices, intervals.vals[intervals.is_left], intervals.vals[intervals.is_right])
    return sample_rays_torch(origins, directions, cells, step, stratified)


def sample_rays_torch(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    cells: OccupiedCells,
    step: float,
    stratified: bool,
) -> Samples:
    """Find the samples of `sample_rays` by testing every step of every ray that hits the box.

    Args:
        origins: Where the rays start, metres, in the space of the cells.
        directions: Unit vectors.
        cells: Samples lie in occupied ones.
        step: Distance between samples, metres.
        stratified: Shift each ray's samples by a random part of a step.
    """
    near, far, hit = ray_aabb_intersect_torch(origins, directions, cells.aabb[None])
    near, far, hit = near[:, 0].clamp_min(0), far[:, 0], hit[:, 0]
    rays = hit.nonzero()[:, 0]
    near, far, origins, directions = near[rays], far[rays], origins[rays], directions[rays]
    # Steps are counted from the ray's origin, not from the box, so that they do not change with the box.
    shift = torch.rand_like(near) if stratified else torch.zeros_like(near)
    first = (near / step - shift - 0.5).ceil().clamp_min(0)  # the first whose middle lies in the box
    lower, upper = cells.aabb[:3], cells.aabb[3:]
    num_steps = int((far - near).max().div(step).ceil()) + 1 if len(rays) else 0
    starts = (first[:, None] + torch.arange(num_steps, device=near.device) + shift[:, None]) * step
    middles = starts + step / 2
    points = origins[:, None] + middles[..., None] * directions[:, None]
    size = torch.tensor(cells.binaries.shape, device=near.device)
    cell = ((points - lower) / (upper - lower) * size).floor().long()
    inside = (middles < far[:, None]) & (cell >= 0).all(dim=-1) & (cell < size).all(dim=-1)
    x, y, z = cell.clamp_min(0).minimum(size - 1).unbind(dim=-1)
    ray, place = (inside & cells.binaries[x, y, z]).nonzero(as_tuple=True)
    start = starts[ray, place]
    return Samples(rays[ray], start, start + step)
