"""How many canonical points the correspondence search finds again, and how fast, on the free body.

Points scattered around the canonical body (2 cm an axis) are skinned forward in random poses (0.35 rad an axis on every
joint) and searched back. Run as `python benchmarks/search_recall.py [--device cuda]`; figures are printed, and written
as JSON where `--output` says.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch

from instantavatar_ns.body.body_model import load_body_model
from instantavatar_ns.body.canonical import canonical_transforms, canonical_vertices, root_space
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer

FOUND = 1e-4  # metres between a point and the root that counts as it


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20_000, help="points per pose")
    parser.add_argument("--poses", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    figures = measure(args.points, args.poses, args.device)
    text = json.dumps(figures, indent=2)
    print(text)
    if args.output is not None:
        partial = args.output.with_suffix(".partial")
        partial.write_text(text + "\n")
        os.replace(partial, args.output)


@torch.no_grad()
def measure(num_points: int, num_poses: int, device: str) -> dict:
    """Recall per pose and overall, largest residual, roots and microseconds per point."""
    generator = torch.Generator().manual_seed(0)
    body = load_body_model("free")
    betas, still = torch.zeros(10), torch.zeros(num_poses, 3)
    vertices = canonical_vertices(body, betas)
    deformer = FastSnarfDeformer(vertices, body.skinning_weights).to(device)
    body_pose = 0.35 * torch.randn(num_poses, 69, generator=generator)
    transforms = body.transforms(betas, still, body_pose, still)
    poses = root_space(transforms, canonical_transforms(body, betas))[1].to(device)

    recalls, residuals, num_roots, seconds = [], [], 0, []
    for bones in poses:
        chosen = torch.randint(len(vertices), (num_points,), generator=generator)
        canonical = (vertices[chosen] + 0.02 * torch.randn(num_points, 3, generator=generator)).to(device)
        posed_points = deformer.skin(canonical, bones)
        posed = deformer.pose(bones)
        start = _now(device)
        roots = deformer(posed_points, posed)
        seconds.append(_now(device) - start)
        distance = (roots.canonical - canonical[roots.point]).norm(dim=-1)
        nearest = torch.full_like(canonical[:, 0], torch.inf).scatter_reduce(0, roots.point, distance, "amin")
        residual = (deformer.skin(roots.canonical, bones) - posed_points[roots.point]).norm(dim=-1)
        recalls.append(float((nearest < FOUND).float().mean()))
        residuals.append(float(residual.max()))
        num_roots += len(roots.point)
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "points": num_points * num_poses,
        "recall": sum(recalls) / num_poses,
        "recall_per_pose": recalls,
        "largest_residual_m": max(residuals),
        "roots_per_point": num_roots / (num_points * num_poses),
        "microseconds_per_point": 1e6 * sorted(seconds)[num_poses // 2] / num_points,
    }


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
