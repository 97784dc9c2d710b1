"""How many canonical points the correspondence search finds again, from how many starts, on the free body.

Points scattered around the canonical body (2 cm an axis) are skinned forward and searched back: in random poses
(0.35 rad an axis on every joint) and in the canonical A-pose, from candidate bones as the deformer does, and from the
13 fixed bones of Fast-SNARF's release, given up at its 0.1 m or at 0.3 m. Run as
`python -m benchmarks.search_recall [--device cuda]`; figures are printed, and written as JSON where `--output` says.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import record
from instantavatar_ns.body.canonical import canonical_transforms, canonical_vertices, root_space
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.smpl import NUM_JOINTS
from instantavatar_ns.deformer.candidates import RESOLUTION, BoneCandidates
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.deformer.search import SearchSettings
from instantavatar_ns.deformer.search_torch import search_roots_torch

FOUND = 1e-4  # metres between a point and the root that counts as it
FIXED_BONES = [0, 1, 2, 4, 5, 10, 11, 12, 15, 16, 17, 18, 19]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20_000, help="points per pose")
    parser.add_argument("--poses", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    record.write(args.output, record.head(args.device) | measure(args.points, args.poses, args.device))


@torch.no_grad()
def measure(num_points: int, num_poses: int, device: str) -> dict:
    """Figures of each way to start, in each kind of pose."""
    body = load_body_model("free")
    betas, still = torch.zeros(10), torch.zeros(num_poses, 3)
    vertices = canonical_vertices(body, betas)
    deformer = FastSnarfDeformer(vertices, body.skinning_weights).to(device)
    body_pose = 0.35 * torch.randn(num_poses, 69, generator=torch.Generator().manual_seed(0))
    transforms = body.transforms(betas, still, body_pose, still)
    random_poses = root_space(transforms, canonical_transforms(body, betas))[1].to(device)
    kinds = {"random": random_poses, "canonical": torch.eye(4, device=device).expand(1, 24, 4, 4)}
    ways = {"candidates": (None, 0.3), "fixed_0.3m": (FIXED_BONES, 0.3), "fixed_0.1m": (FIXED_BONES, 0.1)}
    return {
        kind: {
            way: search_back(deformer, vertices, poses, num_points, bones, diverged)
            for way, (bones, diverged) in ways.items()
        }
        for kind, poses in kinds.items()
    }


def search_back(
    deformer: FastSnarfDeformer,
    vertices: torch.Tensor,
    poses: torch.Tensor,
    num_points: int,
    fixed_bones: list[int] | None,
    diverged: float,
) -> dict:
    """Recall over all poses and in the worst, largest residual, starts, roots and microseconds per point."""
    generator, device = torch.Generator().manual_seed(1), poses.device
    settings = SearchSettings(diverged=diverged)
    recalls, residuals, num_roots, num_starts, seconds = [], [], 0, 0, []
    for bones in poses:
        chosen = torch.randint(len(vertices), (num_points,), generator=generator)
        canonical = (vertices[chosen] + 0.02 * torch.randn(num_points, 3, generator=generator)).to(device)
        posed_points = deformer.skin(canonical, bones)
        posed = deformer.pose(bones)
        if fixed_bones is not None:
            posed = replace(posed, candidates=everywhere(fixed_bones, device))
        start = _now(device)
        roots = search_roots_torch(posed_points, posed, settings)
        seconds.append(_now(device) - start)
        distance = (roots.canonical - canonical[roots.point]).norm(dim=-1)
        nearest = torch.full_like(canonical[:, 0], torch.inf).scatter_reduce(0, roots.point, distance, "amin")
        residual = (deformer.skin(roots.canonical, bones) - posed_points[roots.point]).norm(dim=-1)
        recalls.append(float((nearest < FOUND).float().mean()))
        residuals.append(float(residual.max()))
        num_roots += len(roots.point)
        num_starts += int(posed.candidates.of(posed_points).sum())
    total = num_points * len(poses)
    return {
        "points": total,
        "recall": sum(recalls) / len(poses),
        "recall_worst_pose": min(recalls),
        "largest_residual_m": max(residuals),
        "starts_per_point": num_starts / total,
        "roots_per_point": num_roots / total,
        "microseconds_per_point": 1e6 * sorted(seconds)[len(poses) // 2] / num_points,
    }


def everywhere(bones: list[int], device: torch.device) -> BoneCandidates:
    """The same candidates in a box of ten metres."""
    masks = torch.full((RESOLUTION**3,), sum(1 << bone for bone in bones), dtype=torch.int32, device=device)
    return BoneCandidates(
        torch.full((3,), -5.0, device=device), torch.full((3,), 10 / RESOLUTION, device=device), masks, NUM_JOINTS
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
