"""Colours of a ball, photographed from all around."""

import math

import numpy as np
import pytest
import torch
import trimesh

from instantavatar_ns.export.photographs import Photographs, Places, photographed_colors, robust_mean
from instantavatar_ns.export.silhouettes import fitted_to_masks, lowest, silhouette
from instantavatar_ns.export.surface import Surface
from instantavatar_ns.unseen.coverage import Views

RADIUS, FAR, SIZE, FOCAL, FRAMES = 0.2, 1.5, 128, 400.0, 12


def _turn(angle):
    """About y, and up by 4 cm."""
    transform = torch.eye(4)
    transform[0, 0] = transform[2, 2] = math.cos(angle)
    transform[0, 2], transform[2, 0] = math.sin(angle), -math.sin(angle)
    transform[1, 3] = 0.04
    return transform


def _color(points):
    """Smooth, different everywhere."""
    return points / (2 * RADIUS) * 0.9 + 0.5


def _photograph(bone):
    """Ray-cast the ball that `bone` moves, from a camera on +z; grey behind it."""
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    plane = torch.stack([(columns - SIZE / 2) / FOCAL, (SIZE / 2 - rows) / FOCAL, -torch.ones_like(rows)], dim=-1)
    direction = plane / plane.norm(dim=-1, keepdim=True)
    to_center = torch.tensor([0.0, 0.0, FAR]) - bone[:3, 3]
    half = (direction * to_center).sum(dim=-1)
    root = half.square() - (to_center.square().sum() - RADIUS**2)
    hit = root > 0
    posed = torch.tensor([0.0, 0.0, FAR]) + (-half - root.clamp(min=0).sqrt())[..., None] * direction
    canonical = (posed - bone[:3, 3]) @ bone[:3, :3]
    rgb = torch.where(hit[..., None], _color(canonical), 0.5)
    return (torch.cat([rgb, hit[..., None].float()], dim=-1) * 255).round().byte()


@pytest.fixture(scope="module")
def ball():
    mesh = trimesh.creation.icosphere(4, RADIUS)
    return torch.from_numpy(mesh.vertices).float(), torch.from_numpy(mesh.faces).long()


def _taken(angles):
    bones = torch.stack([_turn(angle) for angle in angles])
    camera = torch.eye(4)
    camera[2, 3] = FAR
    count = len(angles)
    focal, center = torch.full((count, 2), FOCAL), torch.full((count, 2), SIZE / 2)
    views = Views(camera.repeat(count, 1, 1), focal, center, SIZE, SIZE)
    return Photographs(torch.stack([_photograph(bone) for bone in bones]), views, bones[:, None])


def _posed(vertices, photographs):
    bones = photographs.bone_transforms[:, 0]
    return vertices @ bones[:, :3, :3].transpose(1, 2) + bones[:, None, :3, 3]


@pytest.fixture(scope="module")
def places(ball):
    """Random ones on all triangles."""
    _, faces = ball
    return Places(faces.repeat(4, 1), torch.rand(4 * len(faces), 3).softmax(dim=-1))


@pytest.fixture(scope="module")
def around():
    return _taken([2 * math.pi * frame / FRAMES for frame in range(FRAMES)])


def test_colors_are_those_of_the_ball(ball, places, around):
    vertices, faces = ball
    colors, views = photographed_colors(around, _posed(vertices, around), faces, places)
    points = places.of(vertices)
    equator = points[:, 1].abs() < 0.15
    assert (views[equator] > 0.1).all()
    assert (colors - _color(points))[equator].abs().max() < 0.03


def test_what_no_camera_faces_is_told(ball, places):
    """One camera on +z sees half of the ball at most; its edge, seen at a flat angle, does not count."""
    vertices, faces = ball
    photographs = _taken([0.0])
    _, views = photographed_colors(photographs, _posed(vertices, photographs), faces, places)
    height = places.of(vertices)[:, 2] / RADIUS
    assert (views[height < 0.2] == 0).all() and (views[height > 0.6] > 0).all()


def test_what_something_hides_is_told(ball, places):
    """A plate between camera and ball, as an arm before the chest, takes its lower half out of sight."""
    vertices, faces = ball
    photographs = _taken([0.0])
    plate = torch.tensor([[-0.15, -0.15, 0.4], [0.15, -0.15, 0.4], [0.15, 0.04, 0.4], [-0.15, 0.04, 0.4]])
    base = len(vertices)
    all_faces = torch.cat([faces, torch.tensor([[0, 1, 2], [0, 2, 3]]) + base])
    on_plate = Places(all_faces[-2:].repeat(10_000, 1), torch.distributions.Dirichlet(torch.ones(3)).sample((20_000,)))
    both = Places(torch.cat([places.corners, on_plate.corners]), torch.cat([places.barycentric, on_plate.barycentric]))
    posed = torch.cat([_posed(vertices, photographs), plate[None]], dim=1)
    _, views = photographed_colors(photographs, posed, all_faces, both)
    points, views = places.of(vertices), views[: len(places)]
    front = points[:, 2] > 0.7 * RADIUS
    assert (views[front & (points[:, 1] < -0.03)] == 0).float().mean() > 0.99
    assert (views[front & (points[:, 1] > 0.05)] > 0).all()


def test_area_of_a_silhouette(ball):
    """A disc of 50 pixels' radius, seen from far away."""
    vertices, faces = ball
    pixels = vertices[:, :2] / RADIUS * torch.tensor([50.0, -50.0]) + SIZE / 2
    assert silhouette(pixels.numpy(), faces.numpy(), (SIZE, SIZE)).sum() == pytest.approx(math.pi * 50**2, rel=0.005)


@pytest.mark.parametrize("missing", [0.005, -0.002])
def test_surface_moves_to_the_masks(ball, around, missing):
    vertices, faces = (array.numpy() for array in ball)
    normals = vertices / RADIUS
    surface = Surface(vertices - np.float32(missing) * normals, faces.astype(np.int32), normals)

    def skin(points, bones):
        return points @ bones[0, :3, :3].T + bones[0, :3, 3]

    fitted = fitted_to_masks(surface, around, skin)
    assert np.abs(np.linalg.norm(fitted.vertices, axis=1) - RADIUS).max() < 0.001
    np.testing.assert_array_equal(fitted.faces, surface.faces)


def test_lowest_place_lies_between_samples():
    places = np.arange(0.0, 6.0, 1.0)
    assert lowest(places, (places - 2.3) ** 2) == pytest.approx(2.3)
    assert lowest(places, places) == 0.0


def test_odd_photograph_counts_little():
    """A hand, a shadow, a wrong pose: one view in five is red, where a plain mean would be off by a fifth."""
    colors = torch.full((5, 7, 3), 0.4) + 0.01 * torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    colors[2] = torch.tensor([1.0, 0.0, 0.0])
    mean, weight = robust_mean(colors, torch.ones(5, 7))
    assert (mean - 0.4).abs().max() < 0.03
    assert (weight == 5).all()


def test_mean_of_nothing_has_no_weight():
    color, weight = robust_mean(torch.rand(3, 5, 3), torch.zeros(3, 5))
    assert (weight == 0).all() and np.isfinite(color.numpy()).all()
