"""Silhouettes of the person, and the mesh that is compared with them."""

from __future__ import annotations

import torch
from nerfstudio.cameras.cameras import Cameras
from scipy.spatial.transform import Rotation

from instantavatar_ns.correction.silhouettes import (
    Silhouettes,
    distance_to_mask,
    inner_edges,
    match_outlines,
    pinhole_silhouettes,
)


def test_distance_is_negative_within_and_zero_between_pixels() -> None:
    masks = torch.zeros(1, 9, 9, dtype=torch.uint8)
    masks[:, :, 4:] = 200
    expected = torch.tensor([3.5, 2.5, 1.5, 0.5, -0.5, -1.5, -2.5, -3.5, -4.5])
    torch.testing.assert_close(distance_to_mask(masks)[0, 4], expected, atol=0.05, rtol=0)


def test_cameras_project_as_nerfstudios_rays_are_cast() -> None:
    rotation = torch.from_numpy(Rotation.from_rotvec([0.2, -0.4, 0.1]).as_matrix()).float()
    camera_to_world = torch.cat([rotation, torch.tensor([[0.3], [-0.2], [1.0]])], dim=1)[None]
    cameras = Cameras(camera_to_world, 90.0, 95.0, 30.0, 25.0, width=60, height=50)
    world_to_dataset = torch.eye(4)
    world_to_dataset[:3, :3] = torch.from_numpy(Rotation.from_rotvec([1.0, 0.2, 0.3]).as_matrix()).float()
    world_to_dataset[:3, 3] = torch.tensor([0.5, 0.1, -0.7])
    rays = cameras.generate_rays(torch.tensor([[0], [0]]), coords=torch.tensor([[10.5, 20.5], [40.5, 3.5]]))
    points = rays.origins + 2.5 * rays.directions
    points = points @ world_to_dataset[:3, :3].T + world_to_dataset[:3, 3]

    result = pinhole_silhouettes(torch.zeros(1, 50, 60, dtype=torch.uint8), cameras, world_to_dataset)
    transform = result.world_to_camera[0]
    points = points @ transform[:3, :3].T + transform[:3, 3]
    pixels = points[:, :2] / points[:, 2:] * result.focal + result.center
    torch.testing.assert_close(pixels, torch.tensor([[20.5, 10.5], [3.5, 40.5]]), atol=1e-3, rtol=0)


def test_a_closed_mesh_has_three_edges_for_every_two_faces() -> None:
    tetrahedron = torch.tensor([[0, 1, 2], [0, 3, 1], [1, 3, 2], [0, 2, 3]])
    edges, sides = inner_edges(tetrahedron)
    assert len(edges) == 6
    for edge, faces in zip(edges, sides, strict=True):
        assert all(set(edge.tolist()) <= set(tetrahedron[face].tolist()) for face in faces)
    assert len(inner_edges(torch.tensor([[0, 1, 2]]))[0]) == 0


def test_outlines_of_a_box_lie_as_far_within_the_mask_as_it_is_smaller() -> None:
    """A face of 20 by 20 cm, a metre away, is 20 by 20 pixels; the mask is 3 pixels wider to the right."""
    corners = torch.tensor([[x, y, z] for z in (1.0, 1.001) for y in (-0.1, 0.1) for x in (-0.1, 0.1)])
    quads = torch.tensor([[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]])
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    mask = torch.zeros(1, 60, 60, dtype=torch.uint8)
    mask[:, 20:40, 20:43] = 255
    silhouettes = Silhouettes(
        distance_to_mask(mask), torch.full((1, 2), 100.0), torch.full((1, 2), 30.0), torch.eye(4)[None]
    )
    found = match_outlines(corners[None], faces, *inner_edges(faces), silhouettes, 0.05)
    assert (found.frame == 0).all() and len(found.edge) == 4
    for point, slope, distance in zip(found.point, found.slope, found.distance, strict=True):
        axis = 0 if point[0].abs() > 0.05 else 1
        outwards = torch.zeros(2)
        outwards[axis] = point[axis].sign()
        torch.testing.assert_close(slope[:2], outwards, atol=0.05, rtol=0)
        assert abs(distance - (-0.03 if point[0] > 0.05 else 0.0)) < 0.002
    assert len(match_outlines(corners[None], faces, *inner_edges(faces), silhouettes, 0.02).edge) == 3
