"""Normals of a bumpy ball on a smooth one."""

import numpy as np
import pytest
import trimesh

from instantavatar_ns.export.normal_map import bake_normals
from instantavatar_ns.export.surface import Surface
from instantavatar_ns.export.texture import rasterise, unwrap

SIZE, RADIUS = 192, 0.2


def _surface(dense_normals=None):
    """A ball of few triangles whose dense surface is one of many, with its own normals or the given ones."""
    mesh, dense = trimesh.creation.icosphere(2, RADIUS), trimesh.creation.icosphere(5, RADIUS)
    normals = dense.vertices / RADIUS if dense_normals is None else dense_normals(dense.vertices / RADIUS)
    arrays = (mesh.vertices, mesh.vertices / RADIUS, dense.vertices, normals)
    vertices, own, dense_vertices, normals = (np.asarray(array, np.float32) for array in arrays)
    return Surface(vertices, mesh.faces.astype(np.int32), own, dense_vertices, normals)


@pytest.fixture(scope="module")
def unwrapped():
    return unwrap(_surface(), SIZE)


def test_equal_surfaces_give_a_flat_map(unwrapped):
    image = bake_normals(_surface(), unwrapped, SIZE).astype(int)
    assert np.abs(image - [128, 128, 255]).max() <= 6


def test_map_leans_to_where_the_relief_does(unwrapped):
    """Turned back by the texture's own axes, taken from neighboring texels, the map is the dense surface's normals."""

    def leaning(normals):
        leant = normals + 0.3 * np.array([1.0, 0.0, 0.0])
        return leant / np.linalg.norm(leant, axis=1, keepdims=True)

    surface = _surface(leaning)
    image = bake_normals(surface, unwrapped, SIZE) / 127.5 - 1
    face, weights = rasterise(unwrapped, SIZE)
    corners = unwrapped.source[unwrapped.faces[face]]
    points = (surface.vertices[corners] * weights[..., None]).sum(axis=2)
    inner = (face[1:-1, 1:-1] >= 0) & (face[1:-1, 1:-1] == face[1:-1, :-2]) & (face[1:-1, 1:-1] == face[1:-1, 2:])
    inner &= (face[1:-1, 1:-1] == face[:-2, 1:-1]) & (face[1:-1, 1:-1] == face[2:, 1:-1])
    right = (points[1:-1, 2:] - points[1:-1, :-2])[inner]
    up = (points[:-2, 1:-1] - points[2:, 1:-1])[inner]  # rows run downwards
    out = points[1:-1, 1:-1][inner]
    right, up, out = (axis / np.linalg.norm(axis, axis=1, keepdims=True) for axis in (right, up, out))
    value = image[1:-1, 1:-1][inner]
    found = value[:, :1] * right + value[:, 1:2] * up + value[:, 2:] * out
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    expected = leaning(out)
    assert inner.sum() > 1000
    assert np.degrees(np.arccos((found * expected).sum(axis=1).clip(-1, 1))).mean() < 4
