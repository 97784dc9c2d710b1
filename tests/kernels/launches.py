"""Launches of every Triton kernel by the functions of the package that launch them, on tensors of the CPU.

    python -m tests.kernels.launches

Compiles what is launched, on a machine that need not have any GPU, and prints as JSON what each kernel takes: by the
name of the launches in `LAUNCHES`, then of the kernel, for each of its variants.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from instantavatar_ns.correction.frame_pose_triton import FrameConstants, frame_pose_triton
from instantavatar_ns.data.cropped_frames import Crop, CroppedFrames
from instantavatar_ns.data.patch_rays_triton import draw_patches_triton
from instantavatar_ns.data.pixel_sampling import PixelLists
from instantavatar_ns.deformer import search_triton
from instantavatar_ns.deformer.candidates import main_bones
from instantavatar_ns.deformer.search import SearchSettings
from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.field import heads_triton
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.field.field_triton import Precision, evaluate_field
from instantavatar_ns.field.hash_encoding import HashGrid
from instantavatar_ns.losses_triton import LossWeights, StepPixels, StepSamples, step_losses_triton
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.occupancy.cells import OccupiedCells
from instantavatar_ns.occupancy.components_triton import largest_component_triton
from instantavatar_ns.occupancy.posed_grid_triton import pose_cells_triton, union_triton
from instantavatar_ns.optimizers import RowAdam
from instantavatar_ns.rendering.composite_triton import composite_triton
from instantavatar_ns.rendering.march_triton import sample_rays_triton
from instantavatar_ns.rendering.ray_points_triton import sample_points_triton
from instantavatar_ns.rendering.rounds_triton import MarchedRays, composite_round, march
from tests.kernels.harness import compiled_launches, resources

_BOX = VoxelBox(-torch.ones(3), torch.ones(3), (128, 128, 32))
_LENGTHS = (1024, 1000, 1)


def launch_field(
    precision: Precision, grid: HashGrid, width: int, colors: tuple[bool, ...] = (True,), with_total: bool = False
) -> None:
    """Evaluate the field at different numbers of points, forward and backward, and without gradient."""
    field = CanonicalField(torch.full((3,), 0.5), torch.tensor(0.5), grid, width, "torch")
    modules = (field.encoding, field.density_head, field.color_head)
    for num_points in _LENGTHS:
        points, noise = torch.rand(num_points, 3, requires_grad=True), torch.zeros(num_points)
        options: dict[str, Any] = {"precision": precision, "noise": noise}
        if with_total:
            options["total"] = torch.tensor([900], dtype=torch.int32)
        for with_color in colors:
            density, second = evaluate_field(modules, points, with_color=with_color, **options)
            (density.sum() + second.sum()).backward()
            with torch.no_grad():
                evaluate_field(modules, points, with_color=with_color, **options)


def launch_field_with_little_shared_memory() -> None:
    """Evaluate the field as on compute capability 8.6, whose programs share 99 KiB."""
    heads_triton._has_large_shared_memory = lambda device: False
    launch_field("half", HashGrid(), 64)


def launch_search() -> None:
    """Search for different numbers of points, with and without the optional tensors, forward and backward."""
    search_triton._check_device = lambda tensor: None
    weights = torch.full((128 * 128 * 32, 24), 1 / 24)
    bones = torch.eye(4).repeat(24, 1, 1).requires_grad_(True)
    posed = search_triton.pose_triton(bones, weights, main_bones(weights, _BOX), _BOX)
    search_triton.pose_triton(bones, weights, main_bones(weights, _BOX), _BOX, torch.ones(_BOX.resolution) > 0)
    total = torch.ones(1, dtype=torch.int32)
    occupied = torch.ones(_BOX.resolution, dtype=torch.bool)
    for num_points in _LENGTHS[:2]:
        for optional in ({}, {"num_points": total, "occupied": occupied}):
            points = torch.zeros(num_points, 3, requires_grad=True)
            capacity = 2 * num_points
            roots = search_triton.find_roots(points, posed, weights, SearchSettings(), capacity=capacity, **optional)
            roots.canonical.sum().backward()


def launch_occupancy() -> None:
    """Skin the occupied cells into several poses and into one, and look for the largest component."""
    canonical = CanonicalOccupancy(_BOX)
    deformer: Any = SimpleNamespace(skinning_weights=torch.full((128 * 128 * 32, 24), 1 / 24), num_bones=24)
    bones = torch.eye(4).repeat(20, 24, 1, 1)
    union_triton(canonical, deformer, bones, torch.tensor([-1.0, -1, -1, 1, 1, 1]), (66, 72, 38))
    pose_cells_triton(canonical, deformer, bones[0], spacing=2)
    largest_component_triton(canonical.binaries[0])


def launch_rendering() -> None:
    """March and composite rays, in one go for training and in rounds for images."""
    cells = OccupiedCells(torch.tensor([-1.0, -1, -1, 1, 1, 1]), torch.ones(66, 72, 38, dtype=torch.bool))
    for num_rays in _LENGTHS[:2]:
        origins, directions = torch.zeros(num_rays, 3), torch.ones(num_rays, 3)
        density, rgb = torch.zeros(4096, requires_grad=True), torch.zeros(4096, 3, requires_grad=True)
        roots = torch.zeros(2, 4096, dtype=torch.int32)
        samples = sample_rays_triton(origins, directions, cells, 0.01, stratified=True, capacity=4096)
        world_to_root = torch.eye(4, requires_grad=True)
        for some_origins in (origins, origins[:1]):
            sample_points_triton(some_origins, directions, samples, world_to_root, 0.01).sum().backward()
        pixels = composite_triton(density, rgb, *roots, samples, 0.01)
        (pixels.rgb.sum() + pixels.accumulation.sum()).backward()
        marched = MarchedRays.at_origins(num_rays, origins.device)
        samples = march(origins[:1], directions, cells, marched, 0.01, 1e-4, limit=4, capacity=4096)
        composite_round(density, rgb, *roots, samples, marched, 0.01, 0.01, 1e-4)


def launch_optimizer() -> None:
    """Update the rows of a parameter."""
    parameter = torch.zeros(100, 75, requires_grad=True)
    parameter.grad = torch.zeros_like(parameter)
    optimizer = RowAdam([parameter], lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    optimizer._update_torch = optimizer._update_triton
    optimizer.step()


def launch_losses() -> None:
    """Terms of steps of different sizes, on drawn backgrounds and on white."""
    for num_rays in _LENGTHS[:2]:
        rgb, accumulation = torch.zeros(num_rays, 3, requires_grad=True), torch.zeros(num_rays, 1)
        for background in (torch.zeros(num_rays, 3), 1.0):
            pixels = StepPixels(rgb, accumulation, torch.zeros(num_rays, 4), background)
            opacity, is_free = torch.zeros(num_rays), torch.ones(num_rays, dtype=torch.bool)
            samples = StepSamples(torch.zeros(4096), torch.ones(1, dtype=torch.int32), opacity, is_free)
            sum(step_losses_triton(pixels, samples, LossWeights(1.0, 0.1, 0.1, 1.0, 0.0))).backward()


def launch_pose() -> None:
    """Pose a frame of recordings of different lengths, and the gradient."""
    for num_frames, num_knots in ((100, 16), (75, 13)):
        knots, remainders = (torch.zeros(rows, 75, requires_grad=True) for rows in (num_knots, num_frames))
        constants = FrameConstants(
            basis=torch.zeros(num_frames, num_knots),
            coordinates=torch.eye(75),
            given_rotations=torch.eye(3).repeat(num_frames, 24, 1, 1),
            given_transl=torch.zeros(num_frames, 3),
            joints=torch.zeros(24, 3),
            ancestors=torch.full((4, 24), 24),
            descendants=torch.eye(24),
            to_canonical=torch.eye(4).repeat(24, 1, 1),
            world_to_dataset=torch.eye(4),
        )
        world_to_root, bones = frame_pose_triton(torch.zeros(1, dtype=torch.long), knots, remainders, constants)
        (world_to_root.sum() + bones.sum()).backward()


def launch_draws() -> None:
    """Draw patches of frames of different sizes."""
    for height, width, num_patches in ((540, 540, 4), (1080, 1081, 8)):
        crops = [Crop(torch.zeros(32, 32, 4, dtype=torch.uint8), 8, 9)]
        images = CroppedFrames(crops, (height, width), torch.device("cpu"))
        lists = PixelLists(torch.zeros(10, dtype=torch.int32), torch.tensor([0]), torch.tensor([10]))
        number = torch.ones(1, 1)
        cameras: Any = SimpleNamespace(
            fx=number, fy=number, cx=number, cy=number, camera_to_worlds=torch.eye(4)[None, :3]
        )
        frame, shares = torch.zeros(1, dtype=torch.long), torch.zeros(num_patches, dtype=torch.float64)
        draw_patches_triton(frame, lists, images, cameras, 32, shares)


class Launches(NamedTuple):
    """Launches that are compiled together: the function, the compute capability, whether instructions are listed."""

    launch: Callable[[], None]
    capability: int = 90
    with_instructions: bool = False


LAUNCHES = {
    "field, half": Launches(lambda: launch_field("half", HashGrid(), 64, (True, False), with_total=True)),
    "field, float": Launches(lambda: launch_field("float", HashGrid(12, 16), 32)),
    "search": Launches(launch_search, with_instructions=True),
    "occupancy": Launches(launch_occupancy),
    "rendering": Launches(launch_rendering),
    "draws": Launches(launch_draws),
    "losses": Launches(launch_losses),
    "pose": Launches(launch_pose),
    "optimizer": Launches(launch_optimizer),
    # Last, because it changes what the field asks for.
    "field, half, 8.6": Launches(launch_field_with_little_shared_memory, 86),
}


def main() -> None:
    """Compile and print."""
    report = {}
    for name, (launch, capability, with_instructions) in LAUNCHES.items():
        kernels = compiled_launches(launch, capability)
        report[name] = {
            kernel: [resources(variant, with_instructions) for variant in variants]
            for kernel, variants in kernels.items()
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
