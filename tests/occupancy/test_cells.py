"""Grids of occupied cells."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instantavatar_ns.occupancy.cells import cubic_cells, dilate, largest_component, mark_nearest
from instantavatar_ns.occupancy.components_triton import largest_component_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EDGE = 0.1


def lattice(spacing: float, turn: Tensor, offset: Tensor) -> Tensor:
    """Points of a turned cubic lattice that reaches at least 1 metre to all sides."""
    steps = torch.arange(-2.0, 2.0, spacing)
    return torch.cartesian_prod(steps, steps, steps) @ turn.T + offset


def occupied_at(points: Tensor, binaries: Tensor) -> Tensor:
    """Mark points that lie in occupied cells of a box from -1 to 1."""
    x, y, z = ((points + 1) / EDGE).floor().long().unbind(dim=-1)
    return binaries[x, y, z]


def random_turn(seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("spacing", "turned"), [(EDGE, False), (EDGE / math.sqrt(3), True)])
def test_points_an_edge_apart_leave_no_hole(spacing: float, turned: bool, seed: int) -> None:
    """The lattice may lie anywhere between the cells; where it is turned, its diagonal counts."""
    generator = torch.Generator().manual_seed(seed)
    turn = random_turn(seed) if turned else torch.eye(3)
    points = lattice(spacing, turn, spacing * torch.rand(3, generator=generator))
    # Only a ball is lit, so that points outside the box do not fill its border.
    points = points[points.norm(dim=-1) < 0.95]
    box = torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    binaries = mark_nearest(points, box, (20, 20, 20))
    queries = 2 * torch.rand(20_000, 3, generator=generator) - 1
    queries = queries[queries.norm(dim=-1) < 0.95 - 2 * EDGE]
    assert occupied_at(queries, binaries).all()
    assert not binaries[0, 0, 0] and binaries.float().mean() < 0.7


def test_fill_marks_the_eight_cells_nearest_to_a_point() -> None:
    box = torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    binaries = mark_nearest(torch.tensor([[[0.01, 0.09, -0.02]]]), box, (20, 20, 20))
    cells = {tuple(cell) for cell in binaries.nonzero().tolist()}
    assert cells == {(x, y, z) for x in (9, 10) for y in (10, 11) for z in (9, 10)}


def test_points_outside_mark_the_border_and_none_mark_nothing() -> None:
    box = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, 3.0])
    binaries = mark_nearest(torch.tensor([[-5.0, 1.0, 9.0]]), box, (2, 4, 6))
    assert {tuple(cell) for cell in binaries.nonzero().tolist()} == {(0, 1, 5), (0, 2, 5)}
    assert not mark_nearest(torch.zeros(0, 3), box, (2, 4, 6)).any()


def test_cubic_cells_hold_the_box_in_their_middle() -> None:
    lower, upper = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([0.25, 2.0, 2.31])
    aabb, resolution = cubic_cells(lower, upper, EDGE)
    assert resolution == (13, 20, 4)
    torch.testing.assert_close(aabb[3:] - aabb[:3], EDGE * torch.tensor(resolution))
    torch.testing.assert_close(aabb[3:] + aabb[:3], lower + upper)
    assert (aabb[:3] <= lower + 1e-6).all() and (aabb[3:] >= upper - 1e-6).all()


def test_dilate_adds_the_neighbors_and_does_not_wrap_round() -> None:
    binaries = torch.zeros(5, 6, 7, dtype=torch.bool)
    binaries[0, 3, 3] = True
    grown = dilate(binaries)
    assert grown.sum() == 2 * 3 * 3
    assert grown[:2, 2:5, 2:5].all()


LARGEST_COMPONENT = [largest_component, lambda binaries: largest_component_triton(binaries.to(DEVICE)).cpu()]
either_implementation = pytest.mark.parametrize("largest", LARGEST_COMPONENT, ids=["scipy", "triton"])


@either_implementation
def test_largest_component_stays_and_corners_do_not_connect(largest: Callable[[Tensor], Tensor]) -> None:
    binaries = torch.zeros(6, 6, 6, dtype=torch.bool)
    binaries[:2, :2, :2] = True
    binaries[2, 2, 2] = True  # touches at a corner only
    binaries[4:, 4:, 4] = True
    kept = largest(binaries)
    assert kept.sum() == 8 and kept[:2, :2, :2].all()


@either_implementation
def test_largest_component_of_one_or_none_is_all_there_is(largest: Callable[[Tensor], Tensor]) -> None:
    nothing = torch.zeros(3, 3, 3, dtype=torch.bool)
    assert not largest(nothing).any()
    assert largest(~nothing).all()


@pytest.mark.parametrize("share", [0.25, 0.32, 0.45, 0.9])
def test_largest_components_of_both_implementations_are_the_same(share: float) -> None:
    """Around 0.31 the cells of a cubic lattice begin to form winding clusters from side to side."""
    binaries = torch.rand(21, 13, 8, generator=torch.Generator().manual_seed(0)) < share
    expected = largest_component(binaries)
    assert 10 < expected.sum() < binaries.sum() or share == 0.9
    assert torch.equal(largest_component_triton(binaries.to(DEVICE)).cpu(), expected)
