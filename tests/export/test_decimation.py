"""Decimation, and the sewing that keeps what it leaves closed."""

import numpy as np
import pytest
import trimesh

from instantavatar_ns.export.decimation import close, decimate, sew, without_crumbs, without_folds
from instantavatar_ns.utils.errors import InputError


def _box(*corner, size=1.0):
    middle = np.array(corner) + size / 2
    return trimesh.creation.box([size] * 3, trimesh.transformations.translation_matrix(middle))


def test_decimation_keeps_to_its_budget_and_the_shape():
    ball = trimesh.creation.icosphere(5, 0.2)
    mesh = decimate(ball, 1000)
    assert len(mesh.faces) <= 1000 and mesh.is_watertight
    assert mesh.volume == pytest.approx(ball.volume, rel=0.02)
    assert len(decimate(trimesh.creation.icosphere(2), 10_000).faces) == 320


@pytest.mark.parametrize("max_faces", [1, 4, 20])
def test_too_few_triangles_are_an_error(max_faces):
    with pytest.raises(InputError, match=f"--max-faces: expected enough triangles.*found {max_faces}.*Allow more"):
        decimate(trimesh.creation.icosphere(4), max_faces)


def test_sheets_that_meet_in_an_edge_or_a_vertex_are_parted():
    pinched = trimesh.util.concatenate([_box(0, 0, 0), _box(1, 1, 0), _box(-1, -1, -1)])
    pinched.merge_vertices()
    assert len(pinched.vertices) == 24 - 3 and not pinched.is_watertight
    vertices, faces = sew(pinched.vertices, pinched.faces)
    parted = trimesh.Trimesh(vertices, faces, process=False)
    assert len(parted.vertices) == 24 and parted.is_watertight and parted.body_count == 3
    assert parted.volume == pytest.approx(3)
    # Whoever merges equal vertices finds none.
    apart = close(pinched.vertices, pinched.faces)
    assert trimesh.Trimesh(apart.vertices, apart.faces).is_watertight
    assert len(apart.vertices) == 24 and apart.volume == pytest.approx(3, rel=0.02)


def test_triangles_back_to_back_go():
    box = _box(0, 0, 0)
    fold = np.array([[0, 1, 2], [2, 1, 0]])
    doubled = np.concatenate([box.faces, fold, box.faces[:1], box.faces[:1, [1, 0, 2]], box.faces[:1, [2, 1, 0]]])
    kept = without_folds(doubled)
    # Of twice one way and twice the other none is left.
    assert {tuple(sorted(face)) for face in kept} == {tuple(sorted(face)) for face in box.faces[1:]}
    again = trimesh.Trimesh(box.vertices, without_folds(np.concatenate([box.faces, fold])), process=False)
    assert again.is_watertight and again.volume == pytest.approx(1)


def test_any_closed_surface_can_be_sewn():
    """Merging vertices at random leaves every edge balanced, and all that decimation can do, and far more."""
    ball = trimesh.creation.icosphere(2)
    divided = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        merged = generator.permutation(len(ball.vertices))
        merged[: 8 * seed] = generator.integers(len(ball.vertices), size=8 * seed)
        faces = merged[ball.faces]
        faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
        vertices = generator.standard_normal(ball.vertices.shape)
        mesh = close(vertices, faces)
        assert mesh.is_watertight and mesh.is_winding_consistent
        corners = mesh.faces.reshape(-1)
        assert len(np.unique(corners)) == len(mesh.vertices)
        # At every vertex its triangles form one fan: it stays one vertex when sewn again.
        assert len(sew(mesh.vertices, mesh.faces)[0]) == len(mesh.vertices)
        volume = trimesh.Trimesh(vertices, faces, process=False).volume
        assert mesh.volume == pytest.approx(volume, rel=0.1, abs=1)
        divided += len(mesh.faces) - len(without_folds(faces))
    assert divided > 0


def test_an_open_surface_cannot_be_sewn():
    box = _box(0, 0, 0)
    with pytest.raises(ValueError, match="closed surface"):
        close(box.vertices, box.faces[1:])


def test_crumbs_and_cavities_go_and_limbs_stay():
    cavity = _box(0.5, 0.5, 0.5, size=0.3)
    cavity.invert()
    parts = [_box(0, 0, 0), _box(2, 0, 0, size=0.2), _box(3, 0, 0, size=0.02), cavity]
    kept = without_crumbs(trimesh.util.concatenate(parts))
    assert kept.body_count == 2 and kept.is_watertight
    assert kept.volume == pytest.approx(1 + 0.2**3)
