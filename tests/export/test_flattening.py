"""Pieces of a surface in the plane: as they are where that can be, and refused where they would be stretched."""

import numpy as np
import pytest

from instantavatar_ns.export.flattening import Triangles, crosses_itself, flattened


def sheet(columns: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of a grid, 1 apart [n, 2], and its triangles."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows), indexing="ij")
    number = np.arange(columns * rows).reshape(columns, rows)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    faces = np.concatenate([np.stack(corners, axis=-1).reshape(-1, 3) for corners in ((a, b, c), (a, c, d))])
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(float), faces


@pytest.mark.parametrize("order", ["near", "random"])
def test_a_sheet_that_is_only_bent_keeps_its_lengths(order):
    flat, faces = sheet(12, 7)
    # Three quarters of a cylinder, whose straight edges are chords.
    angle = flat[:, 0] * 1.5 * np.pi / 11
    radius = 0.5 / np.sin(0.75 * np.pi / 11)
    vertices = np.stack([radius * np.cos(angle), radius * np.sin(angle), flat[:, 1]], axis=1)
    if order == "random":
        shuffled = np.random.default_rng(0).permutation(len(flat))
        flat, vertices, faces = flat[shuffled], vertices[shuffled], shuffled.argsort()[faces]
    triangles = Triangles.of(vertices, faces)
    np.testing.assert_allclose(triangles.areas, 0.5, atol=1e-9)
    plane = flattened(vertices, triangles, 0.0)
    assert plane is not None
    np.testing.assert_allclose(np.concatenate(triangles.stretch(plane)), 1, atol=1e-5)
    # Turned as a whole, but not over, and moved.
    along, across = plane[faces[0, 1]] - plane[faces[0, 0]], plane[faces[0, 2]] - plane[faces[0, 1]]
    np.testing.assert_allclose(across / along, 1j, atol=1e-5)
    moved = plane - plane[faces[0, 0]] + along * (flat[faces[0, 0]] @ [1, 1j])
    np.testing.assert_allclose(moved, along * (flat @ [1, 1j]), atol=1e-4)


def test_stretch_and_turning_over_are_measured():
    flat, faces = sheet(4, 4)
    triangles = Triangles.of(np.column_stack([flat, np.zeros(len(flat))]), faces)
    turned = (flat * [3, 0.5]) @ [1, 1j] * np.exp(0.7j)
    longest, shortest = triangles.stretch(turned)
    np.testing.assert_allclose(longest, 3)
    np.testing.assert_allclose(shortest, 0.5)
    np.testing.assert_allclose(triangles.stretch(turned.conj())[1], -0.5)
    assert triangles.folded_and_uneven(turned) == (0, 1)
    assert triangles.folded_and_uneven(turned.conj()) == (1, 1)
    assert triangles.folded_and_uneven(flat @ [1, 1j]) == (0, 0)


def test_a_deep_bowl_is_refused_unless_it_may_be_uneven():
    flat, faces = sheet(15, 15)
    vertices = np.column_stack([flat, ((flat - 7) ** 2).sum(axis=1) / 4])
    assert flattened(vertices, Triangles.of(vertices, faces), 0.05) is None
    assert flattened(vertices, Triangles.of(vertices, faces), 1.0) is not None


def test_slivers_do_not_stop_it():
    flat, faces = sheet(10, 10)
    vertices = np.column_stack([flat, np.zeros(len(flat))])
    vertices[44], vertices[72] = vertices[45], (vertices[71] + vertices[73]) / 2 + [0, 1e-13, 0]
    plane = flattened(vertices, Triangles.of(vertices, faces), 1.0)
    assert plane is None or np.isfinite(plane).all()


def test_ends_of_a_strip_that_lie_on_each_other_cross():
    """A flat spiral: a turn and a quarter of a strip, climbing, whose ends cross once it lies in the plane."""
    flat, faces = sheet(60, 4)
    for turns, crosses in ((0.8, False), (1.25, True)):
        angle = flat[:, 0] / 59 * 2 * np.pi * turns
        radius = 8 + flat[:, 1]
        vertices = np.stack([radius * np.cos(angle), radius * np.sin(angle), 2 * angle], axis=1)
        plane = (vertices[:, :2]) @ [1, 1j]
        ends = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
        edges, counts = np.unique(ends, axis=0, return_counts=True)
        begin, end = edges[counts == 1].T
        assert crosses_itself(vertices, plane, begin, end) is crosses


def test_edges_cross_where_both_contain_a_point():
    rng = np.random.default_rng(0)
    begin, end = np.array([0, 2]), np.array([1, 3])
    found = []
    for _ in range(200):
        a, b, c, d = corners = rng.uniform(size=(4, 2))
        along = np.linalg.solve(np.stack([b - a, c - d], axis=1), c - a)
        expected = bool((along > 0).all() and (along < 1).all())
        vertices = np.column_stack([corners, [0, 0, 100, 100]])  # far from each other on the surface
        assert crosses_itself(vertices, corners @ [1, 1j], begin, end) is expected
        found.append(expected)
    assert 20 < sum(found) < 180
