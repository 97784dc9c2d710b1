"""Compile the search's kernels as they are launched, on a machine that need not have any GPU.

    python -m tests.kernels.compile_search [compute capability]

Prints, as JSON, what each of them takes: registers, spilt bytes, shared memory, its machine instructions by kind, and
those that join a product with another lane's.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import torch

from instantavatar_ns.deformer import search_triton
from instantavatar_ns.deformer.candidates import main_bones
from instantavatar_ns.deformer.search import SearchSettings
from instantavatar_ns.deformer.voxels import VoxelBox
from tests.kernels.compiled import compiled_launches, fused_with_other_lanes, instructions, resources


def launch_all() -> None:
    """Launch the kernels with tensors of the CPU, of different lengths, with and without the optional ones."""
    search_triton._check_device = lambda tensor: None
    box = VoxelBox(-torch.ones(3), torch.ones(3), (128, 128, 32))
    weights = torch.full((128 * 128 * 32, 24), 1 / 24)
    bones = torch.eye(4).repeat(24, 1, 1).requires_grad_(True)
    posed = search_triton.pose_triton(bones, weights, main_bones(weights, box), box)
    count = torch.ones(1, dtype=torch.int32)
    occupied = torch.ones(box.resolution, dtype=torch.bool)
    for n in (1024, 1000):
        for optional in ({}, {"num_points": count, "occupied": occupied}):
            points = torch.zeros(n, 3, requires_grad=True)
            roots = search_triton.find_roots(points, posed, weights, SearchSettings(), capacity=2 * n, **optional)
            roots.canonical.sum().backward()


def main() -> None:
    """Compile and print."""
    capability = int(sys.argv[1]) if len(sys.argv) > 1 else 90
    kernels = compiled_launches(launch_all, capability)
    report = {
        name: [
            {
                **resources(kernel),
                "instructions": Counter(instructions(kernel)),
                "fused_with_other_lanes": fused_with_other_lanes(kernel),
            }
            for kernel in variants
        ]
        for name, variants in kernels.items()
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
