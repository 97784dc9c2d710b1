"""Time the occupancy kernels against their torch twins: marching rays, compositing, components, posed grids.

    python -m benchmarks.kernels_occupancy --output benchmarks/results/kernels_occupancy.json

The grid is the free body's in one random pose, the union that of a hundred; the rays are those of a training step
(4096) and of an image of 540x540 pixels that the person fills. Medians of Triton's own timer. With TRITON_INTERPRET=1
the same code is tried on small sizes without a GPU; times mean nothing then, and none are written.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from triton import knobs
from triton.testing import do_bench

from benchmarks import record
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.occupancy.cells import OccupiedCells, largest_component
from instantavatar_ns.occupancy.components_triton import largest_component_triton
from instantavatar_ns.occupancy.posed_grid import PoseUnionGrid, cell_edge, pose_cells
from instantavatar_ns.rendering.composite import sample_weights_torch
from instantavatar_ns.rendering.composite_triton import composite_triton
from instantavatar_ns.rendering.march import sample_rays_torch
from instantavatar_ns.rendering.march_triton import sample_rays_triton
from tests.avatars import body_density, free_avatar, random_bones

STEP = 2 / 256  # metres
INTERPRETED = knobs.runtime.interpret
DISTANCE = 2.5  # metres from the camera to the pelvis


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    if not torch.cuda.is_available() and not INTERPRETED:
        sys.exit("Expected a CUDA GPU, found none. Without one the code can be tried with TRITON_INTERPRET=1")
    device = "cpu" if INTERPRETED else "cuda"
    occupancy, deformer, bones = scene(device)
    cells, binaries = pose_cells(occupancy, deformer, bones[0]), occupancy.binaries[0]
    figures = {}
    for name, size in {"step": 8, "image": 24}.items() if INTERPRETED else {"step": 64, "image": 540}.items():
        figures |= {f"{name}_{key}": value for key, value in measure(size, cells, device).items()}
    figures["component_ms"] = timed(lambda: largest_component_triton(binaries))
    figures["component_scipy_ms"] = timed(lambda: largest_component(binaries))
    figures |= measure_grids(occupancy, deformer, bones)
    record.write(None if INTERPRETED else args.output, record.head(device) | figures)


def scene(device: str) -> tuple[CanonicalOccupancy, FastSnarfDeformer, torch.Tensor]:
    """Occupied canonical cells of the body, its deformer, and bone transforms of random poses."""
    resolution, poses = ((32, 32, 8), 20) if INTERPRETED else ((128, 128, 32), 100)
    avatar = free_avatar(resolution)
    occupancy = CanonicalOccupancy(avatar.deformer.box)
    occupancy.refresh(body_density(avatar.vertices, avatar.body.faces))
    return occupancy.to(device), avatar.deformer.to(device), random_bones(avatar.body, poses).to(device)


def measure_grids(
    occupancy: CanonicalOccupancy, deformer: FastSnarfDeformer, bones: torch.Tensor
) -> dict[str, float | int]:
    """Times of filling the pose-union grid and the grid of one pose, milliseconds; the latter's skinning aside."""
    half = torch.tensor([1.2, 1.5, 1.2])
    figures = {"occupied_cells": int(occupancy.binaries.sum()), "poses": len(bones)}
    for implementation, name in (("triton", ""), ("torch", "_torch")):
        union = PoseUnionGrid(-half, half, cell_edge(occupancy), implementation).to(bones.device)
        figures[f"union{name}_ms"] = timed(partial(union.refresh, occupancy, deformer, bones))
        figures[f"pose{name}_ms"] = timed(partial(pose_cells, occupancy, deformer, bones[0], implementation))
    return figures


def measure(size: int, cells: OccupiedCells, device: str) -> dict[str, float]:
    """Times of an image of `size` by `size` rays that the occupied box fills, milliseconds."""
    origins, directions = (part.to(device) for part in rays(size, cells))
    capacity = int(sample_rays_triton(origins, directions, cells, STEP, False, 1).total) + 1024
    samples = sample_rays_triton(origins, directions, cells, STEP, False, capacity)
    density = 100 * torch.rand(capacity, device=device).square()
    rgb = torch.rand(capacity, 3, device=device)
    leaves = density.requires_grad_(True), rgb.requires_grad_(True)
    root_starts = torch.arange(capacity, dtype=torch.int32, device=device)
    one_root = (root_starts < samples.total).int()
    packed = sample_rays_torch(origins, directions, cells, STEP, False)

    def forward() -> torch.Tensor:
        pixels = composite_triton(*leaves, root_starts, one_root, samples, STEP)
        return pixels.rgb.sum() + pixels.accumulation.sum()

    def forward_torch() -> torch.Tensor:
        weights, _ = sample_weights_torch(packed.ray_indices, density[: len(packed.t_starts)] * STEP, len(origins))
        color = torch.zeros_like(origins).index_add(
            0, packed.ray_indices, weights[:, None] * rgb[: len(packed.t_starts)]
        )
        return color.sum() + weights.sum()

    return {
        "rays": len(origins),
        "samples": int(samples.total),
        "traverse_ms": timed(lambda: sample_rays_triton(origins, directions, cells, STEP, False, capacity)),
        "traverse_torch_ms": timed(lambda: sample_rays_torch(origins, directions, cells, STEP, False)),
        "composite_ms": timed(forward),
        "composite_torch_ms": timed(forward_torch),
        "composite_backward_ms": timed(lambda: torch.autograd.grad(forward(), leaves)),
        "composite_backward_torch_ms": timed(lambda: torch.autograd.grad(forward_torch(), leaves)),
    }


def rays(size: int, cells: OccupiedCells) -> tuple[torch.Tensor, torch.Tensor]:
    """Rays of a camera in front of the box that just sees all of it."""
    lower, upper = cells.aabb[:3].cpu(), cells.aabb[3:].cpu()
    middle, extent = (lower + upper) / 2, float((upper - lower)[:2].max())
    axis = (torch.arange(size) + 0.5) / size - 0.5
    y, x = torch.meshgrid(axis * extent, axis * extent, indexing="ij")
    aim = torch.stack([x, y, torch.full_like(x, -DISTANCE)], dim=-1).view(-1, 3)
    origins = (middle + torch.tensor([0.0, 0.0, DISTANCE])).expand_as(aim)
    return origins.contiguous(), torch.nn.functional.normalize(aim, dim=-1)


def timed(function) -> float:
    """Median milliseconds of a call; in the interpreter the call is made once and counts nothing."""
    if INTERPRETED:
        function()
        return 0.0
    return float(do_bench(function, return_mode="median"))


if __name__ == "__main__":
    main()
