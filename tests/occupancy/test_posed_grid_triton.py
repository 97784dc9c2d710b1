"""Posed grids by Triton's kernels, on the GPU if there is one, else in its interpreter, against those by torch."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_body_pose
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.motion.motion import load_motion
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.occupancy.cells import OccupiedCells, mark_nearest
from instantavatar_ns.occupancy.posed_grid import PoseUnionGrid, cell_edge, pose_cells, posed_bounds
from instantavatar_ns.occupancy.posed_grid_triton import POSE_RESOLUTION, pose_cells_triton
from instantavatar_ns.rendering.march_triton import sample_rays_triton
from tests.avatars import Avatar, body_density, bone_transforms, random_bones

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def deformer(small_avatar: Avatar) -> FastSnarfDeformer:
    return deepcopy(small_avatar.deformer).to(DEVICE)


@pytest.fixture(scope="module")
def occupancy(small_avatar: Avatar) -> CanonicalOccupancy:
    """Canonical occupancy of the body."""
    torch.manual_seed(0)
    occupancy = CanonicalOccupancy(small_avatar.deformer.box)
    occupancy.refresh(body_density(small_avatar.vertices, small_avatar.body.faces))
    assert 0.02 < occupancy.binaries.float().mean() < 0.4
    return occupancy.to(DEVICE)


@pytest.fixture(scope="module")
def bones(small_avatar: Avatar) -> Tensor:
    """The A-pose, a flat T-pose, two of the dance, arms up, and random ones: more than are skinned at once."""
    poses = torch.zeros(5, 69)
    poses[0] = canonical_body_pose(small_avatar.body)
    poses[2:4] = load_motion(Path("dance")).body_pose[[20, 90]]
    poses[4, 15 * 3 + 2], poses[4, 16 * 3 + 2] = 1.4, -1.4
    known = bone_transforms(small_avatar.body, poses)
    return torch.cat([known, random_bones(small_avatar.body, 14)]).to(DEVICE)


def without(occupancy: CanonicalOccupancy, keep: Tensor) -> CanonicalOccupancy:
    other = deepcopy(occupancy)
    other.binaries &= keep
    return other


def union(avatar: Avatar, occupancy: CanonicalOccupancy, bones: Tensor) -> PoseUnionGrid:
    lower, upper = posed_bounds(avatar.vertices, avatar.body.skinning_weights, bones.cpu())
    # No margin, so that some centres lie outside the box.
    grid = PoseUnionGrid(lower, upper, cell_edge(occupancy), "triton").to(DEVICE)
    deformer = deepcopy(avatar.deformer).to(DEVICE)
    grid.refresh(occupancy, deformer, bones)
    return grid


@pytest.mark.parametrize("poses", [slice(0, 1), slice(1, 4), slice(0, 19)])
def test_union_is_that_of_torch(
    small_avatar: Avatar, occupancy: CanonicalOccupancy, bones: Tensor, poses: slice
) -> None:
    grid = union(small_avatar, occupancy, bones[poses])
    points = deepcopy(small_avatar.deformer).to(DEVICE).skin(occupancy.occupied_centers(), bones[poses])
    assert_filled(grid.cells, points)
    assert 0.1 < grid.binaries.float().mean() < 0.9
    assert torch.equal(grid.occs, grid.binaries.flatten().float())


def test_refreshed_union_has_a_new_version(small_avatar: Avatar, occupancy: CanonicalOccupancy, bones: Tensor) -> None:
    """The viewer draws the cells anew when the version has changed."""
    grid = union(small_avatar, occupancy, bones[:1])
    version = grid.binaries._version
    grid.refresh(occupancy, deepcopy(small_avatar.deformer).to(DEVICE), bones[:1])
    assert grid.binaries._version > version


@pytest.mark.parametrize("pose", range(6))
def test_cells_of_a_pose_are_those_of_torch_in_the_same_box(
    deformer: FastSnarfDeformer, occupancy: CanonicalOccupancy, bones: Tensor, pose: int
) -> None:
    cells = pose_cells(occupancy, deformer, bones[pose], "triton")
    points = deformer.skin(occupancy.occupied_centers(), bones[pose])
    assert cells.binaries.shape == (POSE_RESOLUTION,) * 3
    assert_filled(cells, points)
    edge = (cells.aabb[3:] - cells.aabb[:3]) / POSE_RESOLUTION
    torch.testing.assert_close(edge, torch.full_like(edge, cell_edge(occupancy)), atol=1e-4, rtol=0)
    assert covered(cells, cells), "and the box around them holds them all"


@pytest.mark.parametrize("pose", range(5))
def test_samples_are_found_wherever_torch_finds_one(
    deformer: FastSnarfDeformer, occupancy: CanonicalOccupancy, bones: Tensor, pose: int
) -> None:
    """The two grids lie differently; what one marks around the skinned centres the other marks too, within a cell."""
    ours = pose_cells(occupancy, deformer, bones[pose], "triton")
    points = deformer.skin(occupancy.occupied_centers(), bones[pose])
    offsets = torch.rand(8, len(points), 3, generator=torch.Generator().manual_seed(0)).to(DEVICE) - 0.5
    assert contains(ours, (points + 0.99 * cell_edge(occupancy) * offsets).view(-1, 3)).all()


def test_pose_that_the_grid_does_not_hold_has_larger_cells(
    deformer: FastSnarfDeformer, occupancy: CanonicalOccupancy, bones: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instantavatar_ns.occupancy.posed_grid_triton.POSE_RESOLUTION", 16)
    cells = pose_cells(occupancy, deformer, bones[0], "triton")
    edge = (cells.aabb[3:] - cells.aabb[:3]) / 16
    assert cells.binaries.shape == (16, 16, 16) and edge.min() > 1.2 * cell_edge(occupancy)
    torch.testing.assert_close(edge, edge[:1].expand(3))
    points = deformer.skin(occupancy.occupied_centers(), bones[0])
    assert ((points > cells.aabb[:3] + edge / 2) & (points < cells.aabb[3:] - edge / 2)).all()
    assert_filled(cells, points)


def test_nothing_occupied_marks_nothing_and_its_rays_have_no_samples(
    small_avatar: Avatar, deformer: FastSnarfDeformer, occupancy: CanonicalOccupancy, bones: Tensor
) -> None:
    empty = without(occupancy, torch.zeros_like(occupancy.binaries))
    assert not union(small_avatar, empty, bones).binaries.any()
    cells = pose_cells(empty, deformer, bones[0], "triton")
    assert not cells.binaries.any()
    assert cells.filled is not None
    assert cells.aabb.isfinite().all() and cells.filled.isfinite().all()
    assert int(sample_rays_triton(*rays(), cells, 0.02, False, 64).total) == 0


def test_two_parts_are_both_skinned(
    small_avatar: Avatar, deformer: FastSnarfDeformer, occupancy: CanonicalOccupancy, bones: Tensor
) -> None:
    """Two hands: most blocks of cells hold nothing."""
    hands = torch.zeros_like(occupancy.binaries)
    hands[:, :12], hands[:, -12:] = True, True
    two = without(occupancy, hands)
    assert two.binaries[0, :12].any() and two.binaries[0, -12:].any()
    points = deformer.skin(two.occupied_centers(), bones[:4])
    assert_filled(union(small_avatar, two, bones[:4]).cells, points)
    assert_filled(pose_cells(two, deformer, bones[0], "triton"), points[0])


def test_box_around_the_cells_changes_no_sample(
    deformer: FastSnarfDeformer, occupancy: CanonicalOccupancy, bones: Tensor
) -> None:
    cells = pose_cells_triton(occupancy, deformer, bones[0], 2)
    whole = OccupiedCells(cells.aabb, cells.binaries)
    samples, expected = (sample_rays_triton(*rays(), part, 0.02, False, 8192) for part in (cells, whole))
    total = int(samples.total)  # nothing is written behind them
    assert 100 < total == int(expected.total) < 8192
    assert torch.equal(samples.counts, expected.counts)
    ours, theirs = (part.t_starts[:total].sort().values for part in (samples, expected))
    torch.testing.assert_close(ours, theirs)


def test_refresh_keeps_the_same_component_by_both(small_avatar: Avatar, occupancy: CanonicalOccupancy) -> None:
    def density(points: Tensor) -> Tensor:
        """Two balls, of which the larger one stays."""
        left = (points - points.new_tensor([-0.4, -0.2, 0.0])).norm(dim=-1) < 0.2
        right = (points - points.new_tensor([0.4, -0.2, 0.0])).norm(dim=-1) < 0.15
        return 300.0 * (left | right)

    kept = []
    for implementation in ("torch", "triton"):
        torch.manual_seed(0)
        grid = CanonicalOccupancy(small_avatar.deformer.box, implementation).to(DEVICE)
        grid.refresh(density)
        kept.append(grid.binaries.clone())
    assert torch.equal(*kept)
    assert kept[0][0, : kept[0].shape[1] // 2].any() and not kept[0][0, kept[0].shape[1] // 2 + 2 :].any()


def rays() -> tuple[Tensor, Tensor]:
    """A fan of rays at the body."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, 6), torch.linspace(-1.2, 0.8, 6), indexing="ij")
    target = torch.stack([x, y, torch.zeros_like(x)], dim=-1).view(-1, 3)
    origins = torch.tensor([0.2, 0.1, 2.0]).expand_as(target)
    return origins.to(DEVICE), torch.nn.functional.normalize(target - origins, dim=-1).to(DEVICE)


def assert_filled(cells: OccupiedCells, points: Tensor, rounding: float = 1e-5) -> None:
    """Cells are those that torch fills, but for points so near to where two cells meet that they may fall to either."""
    x, y, z = cells.binaries.shape
    place = (points - cells.aabb[:3]) / (cells.aabb[3:] - cells.aabb[:3]) * points.new_tensor([x, y, z]) - 0.5
    # Where a limb is not turned, whole planes of centres lie there.
    clear = ((place - place.round()).abs() > 1e-4).all(dim=-1)
    assert clear.any()
    assert not (mark_nearest(points[clear], cells.aabb, (x, y, z)) & ~cells.binaries).any(), "a cell is missing"
    most = torch.zeros_like(cells.binaries)
    for corner in torch.cartesian_prod(*[torch.tensor([-rounding, rounding], device=points.device)] * 3):
        most |= mark_nearest(points + corner, cells.aabb, (x, y, z))
    assert not (cells.binaries & ~most).any(), "a cell too many"


def contains(cells: OccupiedCells, points: Tensor) -> Tensor:
    """Mark points that lie in occupied cells."""
    size = torch.tensor(cells.binaries.shape, device=points.device)
    cell = ((points - cells.aabb[:3]) / (cells.aabb[3:] - cells.aabb[:3]) * size).floor().long()
    inside = ((cell >= 0) & (cell < size)).all(dim=-1)
    x, y, z = cell.clamp_min(0).minimum(size - 1).unbind(dim=-1)
    return cells.binaries[x, y, z] & inside


def covered(cells: OccupiedCells, outer: OccupiedCells) -> bool:
    """Return whether the box around the occupied cells of `outer` holds those of `cells`."""
    assert outer.filled is not None
    edge = (cells.aabb[3:] - cells.aabb[:3]) / torch.tensor(cells.binaries.shape, device=cells.aabb.device)
    index = cells.binaries.nonzero()
    lower, upper = cells.aabb[:3] + index * edge, cells.aabb[:3] + (index + 1) * edge
    return bool(((lower > outer.filled[:3] - 1e-4) & (upper < outer.filled[3:] + 1e-4)).all())
