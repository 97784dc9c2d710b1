"""Time the correspondence search on a million points near the body, and compare it with the torch search.

    python benchmarks/kernels_search.py --output benchmarks/results/kernels_search.json

2^20 points within 3 cm of the free body's surface, in a random pose (0.35 rad an axis on every joint). `search_ms` is
the median of Triton's own timer for the whole search, merging and compaction included, `pose_ms` that of what a pose
needs before (blended transforms, candidate bones). With TRITON_INTERPRET=1 the same code is tried on few points without
a GPU; times mean nothing then, and none are written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch
from triton import knobs
from triton.testing import do_bench

from instantavatar_ns.deformer._search_triton import follow_roots, search_roots_triton
from instantavatar_ns.deformer.search import SearchSettings, search_roots
from tests.avatars import free_avatar, random_bones

INTERPRETED = knobs.runtime.interpret
DISTANCE = 0.03  # metres from the surface
FOUND = 1e-4  # metres between a root and the one that counts as it
SETTINGS = SearchSettings()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    if not torch.cuda.is_available() and not INTERPRETED:
        sys.exit("Expected a CUDA GPU, found none. Without one the code can be tried with TRITON_INTERPRET=1")
    figures = measure(1 << (8 if INTERPRETED else 20), "cpu" if INTERPRETED else "cuda")
    print(json.dumps(figures, indent=2))
    if args.output is not None and not INTERPRETED:
        commit = os.environ.get("COMMIT") or subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
        head = {
            "date": date.today().isoformat(),
            "device": torch.cuda.get_device_name(),
            "commit": commit,
            "command": "python benchmarks/kernels_search.py " + " ".join(sys.argv[1:]),
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(head | figures, indent=2) + "\n", encoding="utf8")


def measure(num_points: int, device: str) -> dict[str, float]:
    """Times in milliseconds, and how the roots compare."""
    avatar = free_avatar()
    bones = random_bones(avatar.body, 1)[0]
    generator = torch.Generator().manual_seed(0)
    posed_vertices = avatar.deformer.skin(avatar.vertices, bones)
    chosen = torch.randint(len(posed_vertices), (num_points,), generator=generator)
    offsets = torch.nn.functional.normalize(torch.randn(num_points, 3, generator=generator), dim=-1)
    offsets *= DISTANCE * torch.rand(num_points, 1, generator=generator)
    points = (posed_vertices[chosen] + offsets).to(device)
    deformer, bones = avatar.deformer.to(device), bones.to(device)
    posed = deformer.pose(bones)

    roots = search_roots_triton(points, posed, SETTINGS, 2 * num_points)
    count = int(roots.count)
    canonical, point = roots.canonical[:count], roots.point[:count].long()
    twin = search_roots(points, posed, SETTINGS)
    error = (deformer.skin(canonical, bones) - points[point]).norm(dim=-1)
    figures = {
        "points": num_points,
        "search_recall": recall(twin.canonical, twin.point, canonical, roots.first, roots.number),
        "largest_residual_m": float(error.max()),
        "roots_per_point": count / num_points,
        "candidates_per_point": float(posed.candidates.of(points).sum() / num_points),
        "search_ms": timed(lambda: search_roots_triton(points, posed, SETTINGS, 2 * num_points)),
        "search_torch_ms": timed(lambda: search_roots(points, posed, SETTINGS)),
        "pose_ms": timed(lambda: deformer.pose(bones)),
    }
    leaves = points.clone().requires_grad_(True), bones.clone().requires_grad_(True)
    moving = deformer.pose(leaves[1])

    def gradient() -> None:
        followed = follow_roots(roots, leaves[0], moving, deformer.skinning_weights)
        torch.autograd.grad(followed.sum(), leaves)

    figures["gradient_ms"] = timed(gradient)
    return figures


def recall(
    wanted: torch.Tensor, point: torch.Tensor, found: torch.Tensor, first: torch.Tensor, number: torch.Tensor
) -> float:
    """Share of the wanted roots that were found."""
    hit = torch.zeros(len(wanted), dtype=torch.bool, device=wanted.device)
    for slot in range(int(number.max())):
        there = number[point] > slot
        row = (first[point] + slot).long().clamp(max=len(found) - 1)
        hit |= there & ((found[row] - wanted).norm(dim=-1) < FOUND)
    return float(hit.double().mean())


def timed(function) -> float:
    """Median milliseconds of a call; in the interpreter the call is made once and counts nothing."""
    if INTERPRETED:
        function()
        return 0.0
    return float(do_bench(function, return_mode="median"))


if __name__ == "__main__":
    main()
