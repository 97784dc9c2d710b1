"""Time the correspondence search's kernels, and compare what they find with the torch search.

    python -m benchmarks.kernels_search --output benchmarks/results/kernels_search.json

Points lie within 3 cm of the free body's surface in a pose of a dance, in random order, which is the worst for caches.
Times are medians of `triton.testing.do_bench`, which empties the cache before each run. `--sweep` times other sizes of
the programs besides.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks import record
from instantavatar_ns.body.canonical import canonical_transforms, canonical_vertices, root_space
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.deformer import search_torch
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.deformer.search import PosedSkinning, RootBuffer
from instantavatar_ns.demo.motion import dance_poses

REACH = 0.03  # metres from the body
FOUND = 1e-4  # metres between two roots that are the same
BEAT = 0.3  # of a bar: an arm is up and the knees are bent
COPY_BANDWIDTH = 3.0e12  # bytes a second, measured on an H100
SECTORS = 12  # of 32 bytes, that the eight voxels of one evaluation lie in
OPERATIONS = 450  # of one evaluation: the blend 192, Broyden's update, weights, comparisons

Clock = Callable[[Callable[[], Any]], float]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1 << 20)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--sweep", action="store_true", help="time other sizes of the programs, too")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/kernels_search.py times GPU kernels, and torch finds no GPU here.")
    from triton.testing import do_bench

    figures = record.head()
    figures |= measure(
        args.points, "cuda", lambda run: float(do_bench(run, return_mode="median")), (128, 128, 32), args.sweep
    )
    record.write(args.output, figures)


def measure(
    num_points: int, device: str, clock: Clock, resolution: tuple[int, int, int], sweep: bool = False
) -> dict[str, Any]:
    """Times in milliseconds, what is found, what had to be moved and computed.

    Args:
        num_points: Posed points to search.
        device: Where to.
        clock: Milliseconds that a call takes.
        resolution: Of the skinning voxels.
        sweep: Whether to time other sizes of the search's programs.
    """
    from instantavatar_ns.deformer import search_triton

    reference, bones, points = scene(num_points, resolution)
    reference, bones, points = reference.to(device), bones.to(device), points.to(device)
    kernels = copy.copy(reference)
    kernels.settings = replace(reference.settings, implementation="triton")
    capacity = 2 * num_points

    posed, posed_torch = kernels.pose(bones), reference.pose(bones)
    roots = kernels.find_correspondences_into(points, posed, capacity)
    with mock.patch.object(search_torch, "_skin", wraps=search_torch._skin) as skin:
        expected = reference.find_correspondences_into(points, posed_torch, capacity)
        evaluations = sum(len(call.args[0]) for call in skin.call_args_list)
    count = min(int(roots.total), capacity)
    error = reference.skin(roots.canonical[:count], bones) - points[roots.point[:count].long()]
    figures: dict[str, Any] = {
        "points": num_points,
        "roots": int(roots.total),
        "reference_roots": int(expected.total),
        "search_recall": recall(expected, roots),
        "largest_skin_back_m": float(error.norm(dim=-1).max()),
        "starts_per_point": float(posed_torch.candidates.of(points).sum() / num_points),
        "reference_evaluations_per_point": evaluations / num_points,
        "floor": floors(num_points, int(roots.total), evaluations, posed),
    }
    print("found; timing", file=sys.stderr)
    figures["search_ms"] = clock(lambda: kernels.find_correspondences_into(points, posed, capacity))
    figures["pose_ms"] = clock(lambda: kernels.pose(bones))
    leaves = bones.clone().requires_grad_(True), points.clone().requires_grad_(True)
    with_gradient = kernels.find_correspondences_into(leaves[1], replace(posed, bone_transforms=leaves[0]), capacity)
    slope = torch.ones_like(with_gradient.canonical)
    figures["backward_ms"] = clock(
        lambda: torch.autograd.grad(with_gradient.canonical, leaves, slope, retain_graph=True)
    )
    # The order of samples along rays: neighbours find the same voxels in the cache.
    cell = ((points - points.amin(dim=0)) / 0.02).long()
    ordered = points[((cell[:, 0] * 1000 + cell[:, 1]) * 1000 + cell[:, 2]).sort().indices]
    figures["search_ordered_ms"] = clock(lambda: kernels.find_correspondences_into(ordered, posed, capacity))
    if sweep:
        figures["sweep_ms"] = {}
        for block, warps in ((8, 1), (16, 1), (32, 1), (16, 2), (32, 2), (32, 4), (64, 4)):
            with mock.patch.object(search_triton, "SEARCH", search_triton.ProgramSize(block, warps)):
                run = clock(lambda: kernels.find_correspondences_into(points, posed, capacity))
            figures["sweep_ms"][f"{block} points, {warps} warps"] = run
    figures["torch_search_ms"] = clock(lambda: reference.find_correspondences_into(points, posed_torch, capacity))
    figures["torch_pose_ms"] = clock(lambda: reference.pose(bones))
    return figures


def scene(num_points: int, resolution: tuple[int, int, int]) -> tuple[FastSnarfDeformer, Tensor, Tensor]:
    """A deformer, the bones [24, 4, 4] of a pose of the dance, and points [n, 3] around the posed body."""
    body = load_body_model("free")
    betas, still = torch.zeros(10), torch.zeros(1, 3)
    vertices = canonical_vertices(body, betas)
    deformer = FastSnarfDeformer(vertices, body.skinning_weights, resolution)
    rotations, _ = dance_poses(np.array([BEAT]))
    body_pose = torch.from_numpy(rotations[:, 1:].reshape(1, 69)).float()
    transforms = body.transforms(betas, still, body_pose, still)
    bones = root_space(transforms, canonical_transforms(body, betas))[1][0]
    posed = deformer.skin(vertices, bones)

    generator = torch.Generator().manual_seed(0)
    corners = posed[body.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    face = torch.multinomial(area, num_points, replacement=True, generator=generator)
    share = -torch.log(torch.rand(num_points, 3, 1, generator=generator).clamp_min(1e-12))
    surface = (corners[face] * share / share.sum(dim=1, keepdim=True)).sum(dim=1)
    direction = torch.nn.functional.normalize(torch.randn(num_points, 3, generator=generator), dim=-1)
    distance = REACH * torch.rand(num_points, 1, generator=generator) ** (1 / 3)
    return deformer, bones, surface + distance * direction


def recall(expected: RootBuffer, roots: RootBuffer) -> float:
    """Share of the expected roots that are among the others, within a tenth of a millimetre."""
    count = int(expected.total)
    point = expected.point[:count].long()
    nearest = torch.full((count,), torch.inf, device=point.device)
    for place in range(int(roots.counts.max())):
        row = (roots.starts[point].long() + place).clamp(max=len(roots.canonical) - 1)
        distance = (roots.canonical[row] - expected.canonical[:count]).norm(dim=-1)
        nearest = torch.where(roots.counts[point] > place, nearest.minimum(distance), nearest)
    return float((nearest < FOUND).float().mean())


def floors(num_points: int, num_roots: int, evaluations: int, posed: PosedSkinning) -> dict[str, float]:
    """What must be moved and computed, and the milliseconds that the memory needs for it.

    Evaluations are those of the torch search, more than those of the kernel, which gives starts up near known roots.
    """
    memory = 4 * (3 * num_points + 4 * num_roots + 2 * num_points + posed.blended.numel() + len(posed.candidates.masks))
    return {
        "memory_bytes": memory,
        "memory_ms": 1e3 * memory / COPY_BANDWIDTH,
        "cache_bytes": 32 * SECTORS * evaluations,
        "operations": OPERATIONS * evaluations,
    }


if __name__ == "__main__":
    main()
