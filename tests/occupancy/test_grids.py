"""Canonical occupancy, and what it gives when it is skinned into poses, against evaluation through the deformer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import trimesh
from torch import Tensor

from instantavatar_ns.deformer.skinning_grid import skinning_box
from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy, opacity
from instantavatar_ns.occupancy.cells import OccupiedCells
from instantavatar_ns.occupancy.posed_grid import PoseUnionGrid, cell_edge, pose_cells, posed_bounds
from instantavatar_ns.rendering.march import sample_rays
from tests.avatars import Avatar, body_density, points_near, random_bones

POSES = 3

Density = Callable[[Tensor], Tensor]


@pytest.fixture(scope="module")
def density(avatar: Avatar) -> Density:
    return body_density(avatar.vertices, avatar.body.faces)


@pytest.fixture(scope="module")
def occupancy(avatar: Avatar, density: Density) -> CanonicalOccupancy:
    """Canonical occupancy after two refreshes."""
    torch.manual_seed(0)
    occupancy = CanonicalOccupancy(avatar.deformer.box)
    for _ in range(2):
        occupancy.refresh(density)
    return occupancy


@pytest.fixture(scope="module")
def bones(avatar: Avatar) -> Tensor:
    return random_bones(avatar.body, POSES)


@pytest.fixture(scope="module")
def dense_points(avatar: Avatar, density: Density, bones: Tensor) -> list[Tensor]:
    """Per pose, points of root space that have density: jittered lattice points, evaluated through the deformer."""
    found = []
    generator = torch.Generator().manual_seed(0)
    for transforms in bones:
        posed = avatar.deformer.pose(transforms)
        vertices = avatar.deformer.skin(avatar.vertices, transforms)
        lower, upper = vertices.amin(dim=0) - 0.1, vertices.amax(dim=0) + 0.1
        size = 56
        cells = torch.cartesian_prod(*[torch.arange(size)] * 3) + torch.rand(size**3, 3, generator=generator)
        points = lower + cells / size * (upper - lower)
        roots = avatar.deformer(points, posed)
        found.append(points[roots.point[density(roots.canonical) > 0].unique()])
    return found


def recall(points: Tensor, cells: OccupiedCells) -> float:
    """Share of points that lie in occupied cells."""
    lower, upper = cells.aabb[:3], cells.aabb[3:]
    size = torch.tensor(cells.binaries.shape)
    cell = ((points - lower) / (upper - lower) * size).floor().long()
    inside = ((cell >= 0) & (cell < size)).all(dim=-1)
    x, y, z = cell.clamp_min(0).minimum(size - 1).unbind(dim=-1)
    return float((cells.binaries[x, y, z] & inside).float().mean())


@pytest.fixture(scope="module")
def union(avatar: Avatar, occupancy: CanonicalOccupancy, bones: Tensor) -> PoseUnionGrid:
    lower, upper = posed_bounds(avatar.vertices, avatar.body.skinning_weights, bones)
    grid = PoseUnionGrid(lower - 0.2, upper + 0.2, cell_edge(occupancy))
    assert grid.binaries.all(), "until the first refresh all is occupied"
    grid.refresh(occupancy, avatar.deformer, bones)
    return grid


def test_union_grid_holds_what_is_dense_in_any_pose(union: PoseUnionGrid, dense_points: list[Tensor]) -> None:
    recalls = [recall(points, union.cells) for points in dense_points]
    assert min(len(points) for points in dense_points) > 2000
    assert min(recalls) >= 0.99, recalls
    assert union.binaries.float().mean() < 0.25, "and not everything"


def test_cells_of_a_pose_hold_what_is_dense_in_it(
    avatar: Avatar, occupancy: CanonicalOccupancy, bones: Tensor, dense_points: list[Tensor]
) -> None:
    for transforms, points in zip(bones, dense_points, strict=True):
        cells = pose_cells(occupancy, avatar.deformer, transforms)
        assert recall(points, cells) >= 0.999
        edge = (cells.aabb[3:] - cells.aabb[:3]) / torch.tensor(cells.binaries.shape)
        torch.testing.assert_close(edge, torch.full((3,), cell_edge(occupancy)), atol=1e-4, rtol=1e-3)
        # Cells of an edge of 3 cm, around a centimetre of clothes: several times the body, but a small part of its box.
        assert cells.binaries.float().mean() < 0.25


def test_union_is_the_union(avatar: Avatar, occupancy: CanonicalOccupancy, union: PoseUnionGrid, bones: Tensor) -> None:
    lower, upper = posed_bounds(avatar.vertices, avatar.body.skinning_weights, bones)
    single = PoseUnionGrid(lower - 0.2, upper + 0.2, cell_edge(occupancy))
    together = torch.zeros_like(union.binaries)
    for transforms in bones:
        single.refresh(occupancy, avatar.deformer, transforms[None])
        together |= single.binaries
    assert torch.equal(together, union.binaries)


def test_posed_bounds_hold_the_posed_bodies(avatar: Avatar) -> None:
    """More poses than are skinned at once."""
    bones = random_bones(avatar.body, 18)
    lower, upper = posed_bounds(avatar.vertices, avatar.body.skinning_weights, bones)
    corners = []
    for transforms in bones:
        blended = torch.einsum("vj,jrc->vrc", avatar.body.skinning_weights, transforms[:, :3])
        posed = (blended[..., :3] @ avatar.vertices[..., None])[..., 0] + blended[..., 3]
        corners.append(torch.stack([posed.amin(dim=0), posed.amax(dim=0)]))
    torch.testing.assert_close(lower, torch.stack(corners)[:, 0].amin(dim=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(upper, torch.stack(corners)[:, 1].amax(dim=0), atol=1e-5, rtol=0)


def test_samples_of_the_union_grid_lie_in_its_cells(union: PoseUnionGrid) -> None:
    origins = torch.tensor([[0.0, 0.0, 3.0]]).expand(64, 3)
    directions = torch.nn.functional.normalize(
        torch.cat([0.3 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), -torch.ones(64, 1)], 1), dim=-1
    )
    samples = sample_rays(origins, directions, union.cells, 0.02, stratified=False)
    assert len(samples.ray_indices) > 100
    middles = (samples.t_starts + samples.t_ends) / 2
    points = origins[samples.ray_indices] + middles[:, None] * directions[samples.ray_indices]
    assert recall(points, union.cells) == 1.0


# The canonical grid alone


@pytest.fixture
def box(avatar: Avatar) -> VoxelBox:
    return skinning_box(avatar.vertices, (24, 24, 8))


def ball(points: Tensor) -> Tensor:
    return 300.0 * ((points - points.new_tensor([0.1, -0.2, 0.0])).norm(dim=-1) < 0.2)


def test_opacity_is_of_a_centimetre() -> None:
    torch.testing.assert_close(opacity(torch.tensor([0.0, 100.0])), torch.tensor([0.0, 0.63212]), atol=1e-5, rtol=0)


def test_all_is_occupied_before_the_first_refresh_and_while_the_field_is_empty(box: VoxelBox) -> None:
    occupancy = CanonicalOccupancy(box)
    assert occupancy.binaries.all()
    occupancy.refresh(lambda points: torch.zeros(len(points)))
    assert occupancy.binaries.all()


def test_occupancy_starts_near_the_body_inside_included(avatar: Avatar) -> None:
    """All that the body fills is there, and of the space around it no more than the reach and a cell."""
    occupancy, reach = CanonicalOccupancy(avatar.deformer.box), 0.05
    occupancy.start_near(avatar.vertices, reach)
    body = trimesh.Trimesh(avatar.vertices.numpy(), avatar.body.faces.numpy(), process=False)
    free = occupancy.centers()[~occupancy.binaries.flatten()][::31]
    assert torch.cdist(free, avatar.vertices).min() > reach
    assert not body.contains(free.numpy()).any()
    near = occupancy.occupied_centers()[::31]
    inside = torch.from_numpy(body.contains(near.numpy()))
    distance = torch.cdist(near, avatar.vertices).amin(dim=1)
    diagonal = float(((occupancy.aabbs[0, 3:] - occupancy.aabbs[0, :3]) / occupancy.resolution).norm())
    assert distance[~inside].max() < reach + diagonal < distance[inside].max(), "deep inside too"


def test_start_at_the_body_holds_its_clothes_in_any_pose(avatar: Avatar, bones: Tensor) -> None:
    occupancy = CanonicalOccupancy(avatar.deformer.box)
    occupancy.start_near(avatar.vertices, 0.05)
    clothes = points_near(avatar.vertices, 2000)
    for transforms in bones:
        cells = pose_cells(occupancy, avatar.deformer, transforms)
        assert recall(avatar.deformer.skin(clothes, transforms), cells) > 0.999


def test_occupied_cells_hold_the_ball_and_little_more(box: VoxelBox) -> None:
    torch.manual_seed(0)
    occupancy = CanonicalOccupancy(box)
    for _ in range(3):
        occupancy.refresh(ball)
    points = box.lower + torch.rand(20_000, 3) * (box.upper - box.lower)
    occupied = occupancy.occupied(points)
    assert occupied[ball(points) > 0].all()
    distance = (points - torch.tensor([0.1, -0.2, 0.0])).norm(dim=-1)
    edge = ((box.upper - box.lower) / torch.tensor(box.resolution)).max()
    assert not occupied[distance > 0.2 + 2 * 3**0.5 * edge].any()
    assert occupancy.occupied(occupancy.occupied_centers()).all()
    assert len(occupancy.occupied_centers()) == occupancy.binaries.sum()


def test_stray_density_is_dropped(box: VoxelBox) -> None:
    corner = box.lower + 0.05

    def density(points: Tensor) -> Tensor:
        return ball(points) + 300.0 * ((points - corner).norm(dim=-1) < 0.1)

    torch.manual_seed(0)
    occupancy = CanonicalOccupancy(box)
    occupancy.refresh(density)
    assert not occupancy.occupied(corner[None]).any()
    assert occupancy.occupied(torch.tensor([[0.1, -0.2, 0.0]])).all()


def test_density_that_has_gone_is_forgotten_after_some_refreshes(box: VoxelBox) -> None:
    torch.manual_seed(0)
    occupancy = CanonicalOccupancy(box)
    occupancy.refresh(lambda points: ball(points) + ball(points - torch.tensor([0.25, 0.0, 0.0])))
    gone = torch.tensor([[0.5, -0.2, 0.0]])
    assert occupancy.occupied(gone).all()
    occupancy.refresh(ball)
    assert occupancy.occupied(gone).all(), "the maximum decays, it does not drop"
    for _ in range(40):
        occupancy.refresh(ball)
    assert not occupancy.occupied(gone).any()


def test_nothing_outside_the_box_is_occupied(box: VoxelBox) -> None:
    occupancy = CanonicalOccupancy(box)
    beyond = torch.stack([box.lower - 1e-3, box.upper + 1e-3, torch.full((3,), torch.nan), torch.full((3,), torch.inf)])
    assert not occupancy.occupied(beyond).any()
    assert occupancy.occupied((box.lower + box.upper)[None] / 2).all()


def test_jittered_points_lie_one_in_each_cell(box: VoxelBox) -> None:
    occupancy = CanonicalOccupancy(box)
    edge = (box.upper - box.lower) / torch.tensor(box.resolution)
    torch.testing.assert_close(occupancy.centers(), box.lower + (occupancy.grid_coords + 0.5) * edge)
    assert ((occupancy.jittered() - occupancy.centers()).abs() <= edge / 2 + 1e-5).all()


def test_random_points_fill_the_box_and_know_their_cells(box: VoxelBox) -> None:
    torch.manual_seed(0)
    occupancy = CanonicalOccupancy(box)
    occupancy.refresh(ball)
    points, is_occupied = occupancy.random_points(4000)
    assert 10 < is_occupied.sum() < 2000
    assert (is_occupied == occupancy.occupied(points)).float().mean() > 0.999, "rounding at the faces of cells"
    points = (points - box.lower) / (box.upper - box.lower)
    assert points.shape == (4000, 3) and (points >= 0).all() and (points <= 1).all()
    torch.testing.assert_close(points.mean(dim=0), torch.full((3,), 1 / 2), atol=0.03, rtol=0)
    torch.testing.assert_close(points.var(dim=0), torch.full((3,), 1 / 12), atol=0.01, rtol=0)


def test_pose_without_occupied_cells_has_no_cells(avatar: Avatar, bones: Tensor) -> None:
    occupancy = CanonicalOccupancy(avatar.deformer.box)
    occupancy.binaries.fill_(False)
    assert not pose_cells(occupancy, avatar.deformer, bones[0]).binaries.any()


def test_occupancy_is_saved_with_the_model(avatar: Avatar, union: PoseUnionGrid) -> None:
    assert "binaries" in union.state_dict() and "aabbs" in union.state_dict()
