"""Count the samples that an image takes in rounds, front to back, beside all and beside those that are not hidden.

    python -m benchmarks.image_rounds --rounds 24 12 16

The free body, of density 300 per metre, in random poses, in an image that its occupied cells just fill. Runs on a CPU.
"""

from __future__ import annotations

import argparse
import json

import torch
from torch import Tensor

from benchmarks.kernels_occupancy import STEP, rays
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.occupancy.posed_grid import pose_cells
from instantavatar_ns.rendering.composite import most_optical_depth
from instantavatar_ns.rendering.image_buffers import ROUNDS
from instantavatar_ns.rendering.inputs import image_rules
from instantavatar_ns.rendering.march import Samples, sample_rays_torch
from tests.avatars import body_density, free_avatar, random_bones

POSES = 4
SIZE = 64  # pixels along an edge
MOST_DEPTH = most_optical_depth(image_rules(STEP).early_stop_eps)
POINTS_AT_A_TIME = 1 << 14


@torch.no_grad()
def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, nargs="*", default=ROUNDS[:-1], help="samples a ray; the rest follows")
    limits = [*parser.parse_args().rounds, 1 << 30]
    torch.manual_seed(0)
    avatar = free_avatar()
    occupancy = CanonicalOccupancy(avatar.deformer.box)
    density = body_density(avatar.vertices, avatar.body.faces)
    occupancy.refresh(density)
    taken, total, visible, hit = torch.zeros(len(limits)), 0, 0, 0
    for bones in random_bones(avatar.body, POSES):
        cells = pose_cells(occupancy, avatar.deformer, bones)
        origins, directions = rays(SIZE, cells)
        samples = sample_rays_torch(origins, directions, cells, STEP, stratified=False)
        middles = samples.t_starts + STEP / 2
        points = origins[samples.ray_indices] + middles[:, None] * directions[samples.ray_indices]
        posed, optical = avatar.deformer.pose(bones), []
        for part in points.split(POINTS_AT_A_TIME):
            roots = avatar.deformer(part, posed)
            keep = occupancy.occupied(roots.canonical)
            densest = torch.zeros(len(part))
            optical.append(densest.scatter_reduce(0, roots.point[keep], density(roots.canonical[keep]), "amax") * STEP)
        place, in_front = along_rays(samples, torch.cat(optical), SIZE**2)
        taken += samples_of_rounds(samples, place, in_front, limits)
        visible += int((in_front <= MOST_DEPTH).sum())
        total, hit = total + len(points), hit + len(samples.ray_indices.unique())
    print(
        json.dumps(
            {
                "samples_of_a_ray_that_has_any": total / hit,
                "rays_that_have_any": hit / (POSES * SIZE**2),
                "visible": visible / total,
                "taken": float(taken.sum()) / total,
                "samples_a_pixel_in_each_round": (taken / (POSES * SIZE**2)).tolist(),
            },
            indent=2,
        )
    )


def along_rays(samples: Samples, optical: Tensor, num_rays: int) -> tuple[Tensor, Tensor]:
    """Each sample's number on its ray, and the optical depth in front of it."""
    counts = samples.ray_indices.bincount(minlength=num_rays)
    first = (counts.cumsum(0) - counts)[samples.ray_indices]
    before = optical.double().cumsum(0) - optical
    return torch.arange(len(optical)) - first, before - before[first]


def samples_of_rounds(samples: Samples, place: Tensor, in_front: Tensor, limits: list[int]) -> Tensor:
    """Samples of each round: those of rays that are not opaque where the round begins."""
    taken, begin = [], 0
    for limit in limits:
        goes_on = torch.zeros(int(samples.ray_indices.max()) + 1, dtype=torch.bool)
        goes_on[samples.ray_indices[(place == begin) & (in_front <= MOST_DEPTH)]] = True
        taken.append(int((goes_on[samples.ray_indices] & (place >= begin) & (place < begin + limit)).sum()))
        begin += limit
    return torch.tensor(taken)


if __name__ == "__main__":
    main()
