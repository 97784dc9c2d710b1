"""Unwrapping, and what colours are baked."""

import numpy as np
import pytest
import torch
import trimesh

from instantavatar_ns.export.surface import Surface
from instantavatar_ns.export.texture import bake, fill_unknown, rasterise, surface_colors, unwrap

SIZE = 160


@pytest.fixture(scope="module")
def ball():
    mesh = trimesh.creation.icosphere(3, 0.2)
    return Surface(
        mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), mesh.vertex_normals.astype(np.float32)
    )


@pytest.fixture(scope="module")
def unwrapped(ball):
    return unwrap(ball, SIZE)


def _rainbow(points):
    """A dense ball whose colour follows the position."""
    return 300.0 * (points.norm(dim=-1) < 0.2).float(), points / 0.5 + 0.5


def test_unwrapped_triangles_are_those_of_the_surface(ball, unwrapped):
    assert (np.sort(unwrapped.source[unwrapped.faces], axis=1) == np.sort(ball.faces, axis=1)).all()
    assert unwrapped.uv.min() >= 0 and unwrapped.uv.max() <= 1


def test_every_triangle_shows_in_the_texture_at_its_place(unwrapped):
    face, barycentric = rasterise(unwrapped, SIZE)
    seen = np.unique(face[face >= 0])
    assert len(seen) > 0.98 * len(unwrapped.faces)
    rows, columns = np.nonzero(face >= 0)
    corners = unwrapped.uv[unwrapped.faces[face[rows, columns]]]
    uv = (corners * barycentric[rows, columns][..., None]).sum(axis=1)
    expected = np.stack([(columns + 0.5) / SIZE, 1 - (rows + 0.5) / SIZE], axis=1)
    assert np.abs(uv - expected).max() < 2 / SIZE  # texels that an edge only touches are moved to it


def test_texture_has_the_colors_of_the_surface(ball, unwrapped):
    texture = bake(_rainbow, ball, unwrapped, SIZE) / 255.0
    uv = unwrapped.uv[unwrapped.faces].mean(axis=1)
    columns, rows = (uv[:, 0] * SIZE).astype(int), ((1 - uv[:, 1]) * SIZE).astype(int)
    centers = ball.vertices[unwrapped.source[unwrapped.faces]].mean(axis=1)
    expected = _rainbow(torch.from_numpy(centers))[1].numpy()
    assert np.abs(texture[rows, columns] - expected).max() < 0.05


def test_colors_are_composited_along_the_way_inwards():
    """Red skin of 4 mm over blue: what shines through depends on how dense the skin is."""

    def shade(points):
        red = (points[:, 2] > -0.004)[:, None]
        return torch.full((len(points),), 100.0), torch.where(red, torch.eye(3)[0], torch.eye(3)[2])

    normals = np.array([[0.0, 0.0, 3.0]], np.float32)
    colors, seen = surface_colors(shade, np.zeros((1, 3), np.float32), normals)
    # From 4 mm before the surface to 16 mm behind it; the first 8 mm are red.
    red, blue = 1 - np.exp(-0.8), np.exp(-0.8) - np.exp(-2.0)
    assert seen.all()
    np.testing.assert_allclose(colors[0] / 255, [red / (red + blue), 0, blue / (red + blue)], atol=0.003)


def test_rays_that_meet_nothing_are_told(ball):
    _, seen = surface_colors(lambda points: (torch.zeros(len(points)), points), ball.vertices, ball.normals)
    assert not seen.any()


def test_unknown_texels_take_the_nearest_color():
    texture = np.zeros((4, 6, 3), np.uint8)
    texture[:, 0], texture[:, 5] = 10, 20
    known = np.zeros((4, 6), bool)
    assert fill_unknown(texture, known) is texture
    known[:, [0, 5]] = True
    assert fill_unknown(texture, known)[..., 0].tolist() == [[10, 10, 10, 20, 20, 20]] * 4
