"""Charts of a texture: few, whole, and without much stretch."""

import numpy as np
import pytest
import trimesh

from instantavatar_ns.export.charts import cut_into_charts
from instantavatar_ns.export.surface import Surface
from instantavatar_ns.export.texture import unwrap


def surface_of(mesh: trimesh.Trimesh) -> Surface:
    vertices, normals = mesh.vertices.astype(np.float32), mesh.vertex_normals.astype(np.float32)
    return Surface(vertices, mesh.faces.astype(np.int32), normals)


@pytest.fixture(scope="module")
def person():
    """A rough person: a trunk with a head, arms and legs, of bumps of some millimetres."""
    lattice = np.stack(np.meshgrid(*[np.arange(-1, 1, 0.05)] * 3, indexing="ij"), axis=-1)
    limbs = [((0, -0.1, 0), (0, 0.4, 0), 0.16), ((0, 0.5, 0), (0, 0.7, 0), 0.13)]
    for side in (-1, 1):
        limbs += [
            ((side * 0.2, 0.35, 0), (side * 0.7, 0.0, 0), 0.09),
            ((side * 0.1, -0.2, 0), (side * 0.3, -0.8, 0), 0.1),
        ]
    distances = []
    for start, end, radius in limbs:
        along = np.subtract(end, start)
        place = ((lattice - start) @ along / (along @ along)).clip(0, 1)
        distances.append(np.linalg.norm(lattice - start - place[..., None] * along, axis=-1) - radius)
    mesh = trimesh.voxel.ops.matrix_to_marching_cubes(np.min(distances, axis=0) < 0, pitch=0.05)
    trimesh.smoothing.filter_taubin(mesh, iterations=10)
    mesh.vertices += np.random.default_rng(0).normal(0, 0.003, mesh.vertices.shape)
    assert mesh.is_watertight
    return surface_of(mesh)


def stretch(surface: Surface, source: np.ndarray, faces: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Largest and smallest change of length in each triangle [faces, 2]."""
    corners, flat = surface.vertices[source][faces].astype(float), plane[faces].astype(float)
    edges, flat_edges = corners[:, 1:] - corners[:, :1], flat[:, 1:] - flat[:, :1]
    metric = edges @ edges.transpose(0, 2, 1)
    flat_metric = flat_edges @ flat_edges.transpose(0, 2, 1)
    return np.sqrt(np.sort(np.linalg.eigvals(np.linalg.solve(metric, flat_metric)).real.clip(0), axis=1)[:, ::-1])


def test_charts_are_few_and_hardly_stretched(person):
    charts = cut_into_charts(person)
    # The same triangles, of the same vertices, in the same order.
    np.testing.assert_array_equal(charts.source[charts.faces], person.faces)
    assert 4 <= charts.count <= 40
    longest, shortest = stretch(person, charts.source, charts.faces, charts.plane).T
    assert np.percentile(longest / shortest.clip(1e-3), 95) < 1.8
    assert 0.5 < np.percentile(np.sqrt(longest * shortest), 5)
    assert np.percentile(np.sqrt(longest * shortest), 95) < 1.7


def test_texels_belong_to_one_place(person):
    """The triangles fill the square as they would if none lay on another."""
    from instantavatar_ns.export.texture import rasterise

    size = 512
    unwrapped = unwrap(person, size)
    np.testing.assert_array_equal(np.sort(unwrapped.source[unwrapped.faces]), np.sort(person.faces))
    assert unwrapped.uv.min() >= 0 and unwrapped.uv.max() <= 1
    a, b, c = (unwrapped.uv[unwrapped.faces[:, corner]] * size for corner in range(3))
    areas = np.abs(np.linalg.det(np.stack([b - a, c - a], axis=1))) / 2
    face, _ = rasterise(unwrapped, size)
    middles = ((a + b + c) / 3).astype(int)
    shown = face[size - 1 - middles[:, 1], middles[:, 0]]
    # A triangle of many texels shows in its middle.
    large = areas > 20
    assert large.sum() > 100
    assert (shown == np.arange(len(unwrapped.faces)))[large].mean() > 0.98


@pytest.mark.parametrize(
    "mesh", [trimesh.creation.icosphere(2), trimesh.creation.torus(1.0, 0.3), trimesh.creation.box()]
)
def test_any_closed_surface_is_cut(mesh):
    surface = surface_of(mesh)
    charts = cut_into_charts(surface)
    np.testing.assert_array_equal(charts.source[charts.faces], surface.faces)
    assert charts.count <= 40
