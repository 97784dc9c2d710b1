"""Distance of the box' cells from the body's surface, inside and outside."""

from __future__ import annotations

import pytest
import torch
import trimesh
from torch import Tensor

from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.unseen.distance import signed_distance_of_cells

RADIUS = 0.3
BOX = VoxelBox(torch.full((3,), -0.5), torch.full((3,), 0.5), (40, 40, 20))
DIAGONAL = (0.025**2 + 0.025**2 + 0.05**2) ** 0.5  # of a cell


@pytest.fixture(scope="module")
def ball() -> tuple[Tensor, Tensor]:
    mesh = trimesh.creation.icosphere(4, RADIUS)
    return torch.from_numpy(mesh.vertices).float(), torch.from_numpy(mesh.faces).long()


def heights() -> Tensor:
    """Of the cells' middles over the ball, metres."""
    axes = [(torch.arange(count) + 0.5) / count - 0.5 for count in BOX.resolution]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3).norm(dim=-1) - RADIUS


def assert_right(distance: Tensor) -> None:
    height = heights()
    assert (distance[height > DIAGONAL / 2] > 0).all()
    assert (distance[height < -DIAGONAL / 2 - 0.005] < 0).all()  # the mesh lies within the ball
    assert (distance[height.abs() < 0.005] == 0).all()
    assert (distance - height).abs().max() < DIAGONAL / 2 + 0.005
    assert (distance - height)[distance != 0].abs().mean() < 0.015


def test_distance_from_a_ball(ball: tuple[Tensor, Tensor]) -> None:
    assert_right(signed_distance_of_cells(*ball, BOX))


def test_it_does_not_depend_on_which_way_faces_look(ball: tuple[Tensor, Tensor]) -> None:
    vertices, faces = ball
    turned = faces.clone()
    turned[::5] = turned[::5].flip(dims=[1])
    assert torch.equal(signed_distance_of_cells(vertices, turned, BOX), signed_distance_of_cells(*ball, BOX))


def test_large_faces_are_as_closed_as_small_ones() -> None:
    cube = trimesh.creation.box((0.52, 0.52, 0.52))
    corners = torch.from_numpy(cube.vertices).float() + torch.tensor([0.012, 0.012, 0.0])  # amid cells
    distance = signed_distance_of_cells(corners, torch.from_numpy(cube.faces).long(), BOX)
    assert (distance < 0).sum() == 19 * 19 * 10


def test_openings_smaller_than_a_cell_do_not_matter(ball: tuple[Tensor, Tensor]) -> None:
    vertices, faces = ball
    assert_right(signed_distance_of_cells(vertices, faces[torch.arange(len(faces)) % 50 > 0], BOX))


def test_nothing_is_told_of_a_surface_with_large_openings(ball: tuple[Tensor, Tensor]) -> None:
    vertices, faces = ball
    cut = faces[vertices[faces].mean(dim=1)[:, 1] < 0.2]
    assert not signed_distance_of_cells(vertices, cut, BOX).any()


def test_nothing_is_told_without_faces() -> None:
    assert not signed_distance_of_cells(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.long), BOX).any()
