"""Where the exported avatar stands, and linear blend skinning."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.export.rigged import bounds, joint_transforms, skinning_matrices
from tests.export.skinning import skin


def test_motion_starts_over_the_origin_facing_ahead_on_the_floor(rigged, walk):
    """Whatever world it was recorded in."""
    turn = Rotation.from_rotvec([0.5, 2.0, -0.4])
    shift = np.array([3.0, -2.0, 7.0])
    orient = (turn * Rotation.from_rotvec(walk.global_orient.numpy())).as_rotvec()
    elsewhere = replace(
        walk,
        global_orient=torch.from_numpy(orient).float(),
        transl=torch.from_numpy(turn.apply(walk.transl.numpy()) + shift).float(),
        up=torch.from_numpy(turn.apply(walk.up.numpy())).float(),
    )
    clip = rigged.clip(elsewhere)
    np.testing.assert_allclose(clip.root, rigged.clip(walk).root, atol=1e-5)
    np.testing.assert_allclose(clip.root[0, [0, 2]], 0, atol=1e-6)
    heights = [skin(rigged.mesh, matrices)[0][:, 1].min() for matrices in skinning_matrices(rigged.skeleton, clip)]
    assert min(heights) == pytest.approx(0, abs=1e-5) and max(heights) < 0.03
    first = joint_transforms(rigged.skeleton, clip)[0]
    left, right = (rigged.joint_names.index(f"{side}_hip") for side in ("left", "right"))
    across = first[left, :3, 3] - first[right, :3, 3]
    assert across[0] > 0.95 * np.linalg.norm(across), "the left hip is at +x of one who faces +z"


def test_rest_is_the_pose_of_the_mesh(rigged):
    posed, normals = skin(rigged.mesh, skinning_matrices(rigged.skeleton, rigged.rest)[0])
    shift = posed - rigged.mesh.positions
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-5)
    np.testing.assert_allclose(normals, rigged.mesh.normals, atol=1e-5)
    assert posed[:, 1].min() == pytest.approx(0, abs=1e-6)


def test_skinning_turns_normals_with_the_surface(rigged, walk):
    """They stay those of the posed triangles, but for the creases."""
    matrices = skinning_matrices(rigged.skeleton, rigged.clip(walk))[10]
    vertices, normals = skin(rigged.mesh, matrices)
    a, b, c = vertices[rigged.mesh.faces].swapaxes(0, 1)
    faces = np.cross(b - a, c - a)
    faces /= np.linalg.norm(faces, axis=1, keepdims=True).clip(1e-12)
    at_faces = normals[rigged.mesh.faces].mean(axis=1)
    assert np.quantile((faces * at_faces).sum(axis=1), 0.05) > 0.8


def test_bounds_are_those_of_the_skinned_vertices(rigged, walk):
    matrices = skinning_matrices(rigged.skeleton, rigged.clip(walk))
    posed = np.stack([skin(rigged.mesh, frame)[0] for frame in matrices])
    least, largest = bounds(rigged.mesh, matrices)
    np.testing.assert_allclose(least, posed.min(axis=1), atol=1e-6)
    np.testing.assert_allclose(largest, posed.max(axis=1), atol=1e-6)
