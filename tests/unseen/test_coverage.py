"""What the training views see of a body."""

from __future__ import annotations

import math

import pytest
import torch
import trimesh
from torch import Tensor

from instantavatar_ns.unseen.coverage import Views, surface_normals, view_coverage

DISTANCE, FOCAL, SIZE = 4.0, 500.0, 200


def mesh(*parts: trimesh.Trimesh) -> tuple[Tensor, Tensor]:
    whole = trimesh.util.concatenate(parts)
    return torch.from_numpy(whole.vertices).float(), torch.from_numpy(whole.faces).long()


def views_from(angles: list[float]) -> Views:
    """Cameras around the y axis that look at the origin; 0 looks from the positive z axis."""
    cameras = torch.eye(4).repeat(len(angles), 1, 1)
    for camera, angle in zip(cameras, angles, strict=True):
        sine, cosine = math.sin(angle), math.cos(angle)
        camera[:3, :3] = torch.tensor([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        camera[:3, 3] = DISTANCE * camera[:3, 2]
    middle = torch.full((len(angles), 2), SIZE / 2)
    return Views(cameras, torch.full((len(angles), 2), FOCAL), middle, SIZE, SIZE)


def coverage_of(vertices: Tensor, faces: Tensor, angles: list[float], bones: Tensor | None = None):
    weights = torch.ones(len(vertices), 1)
    bones = torch.eye(4).expand(len(angles), 1, 4, 4) if bones is None else bones
    return view_coverage(vertices, surface_normals(vertices, faces), weights, bones, views_from(angles))


@pytest.fixture(scope="module")
def ball() -> tuple[Tensor, Tensor]:
    return mesh(trimesh.creation.icosphere(4, 0.4))


def test_normals_of_a_ball_point_outwards(ball: tuple[Tensor, Tensor]) -> None:
    vertices, faces = ball
    torch.testing.assert_close(surface_normals(vertices, faces), vertices / 0.4, atol=0.01, rtol=0)


def test_front_is_seen_and_the_back_is_not(ball: tuple[Tensor, Tensor]) -> None:
    vertices, faces = ball
    share = coverage_of(vertices, faces, [0.0, 0.1]).share
    assert (share[vertices[:, 2] > 0.2] == 1).all()
    assert (share[vertices[:, 2] < 0.0] == 0).all()


def test_share_counts_the_frames(ball: tuple[Tensor, Tensor]) -> None:
    """One of four cameras around the ball looks squarely at a vertex on an axis."""
    vertices, faces = ball
    share = coverage_of(vertices, faces, [0.0, math.pi / 2, math.pi, 3 * math.pi / 2]).share
    assert share[vertices[:, 2].argmax()] == share[vertices[:, 0].argmin()] == 0.25


def test_views_from_one_side_agree_and_those_from_all_sides_do_not(ball: tuple[Tensor, Tensor]) -> None:
    vertices, faces = ball
    front = vertices[:, 2].argmax()
    one_side = coverage_of(vertices, faces, [-0.2, 0.0, 0.2])
    around = coverage_of(vertices, faces, [2 * math.pi * k / 36 for k in range(36)])
    assert one_side.agreement[front] > 0.97
    assert 0.65 < around.agreement[front] < 0.85
    assert one_side.agreement[vertices[:, 2].argmin()] == 0


def test_turning_person_is_as_a_turning_camera(ball: tuple[Tensor, Tensor]) -> None:
    vertices, faces = ball
    angles = [0.0, 0.7, 1.4]
    turned = torch.eye(4).repeat(3, 1, 1, 1)
    for bone, angle in zip(turned[:, 0], angles, strict=True):
        bone[:3, :3] = views_from([-angle]).camera_to_root[0, :3, :3]
    by_person, by_camera = coverage_of(vertices, faces, [0.0] * 3, turned), coverage_of(vertices, faces, angles)
    changed = by_person.share != by_camera.share
    assert changed.float().mean() < 0.01  # on the edge of being seen, rounding decides
    torch.testing.assert_close(by_person.agreement[~changed], by_camera.agreement[~changed], atol=1e-3, rtol=0)


def test_part_behind_another_is_hidden() -> None:
    near = trimesh.creation.icosphere(4, 0.3)
    near.apply_translation([0, 0, 1.0])
    far = trimesh.creation.icosphere(4, 0.15)
    vertices, faces = mesh(near, far)
    share = coverage_of(vertices, faces, [0.0]).share
    assert (share[len(near.vertices) :] == 0).all()
    assert share[: len(near.vertices)].max() == 1
