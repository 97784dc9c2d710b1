"""Cameras that show the whole person, and frames in which they do not."""

import math

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from scipy.spatial.transform import Rotation

from instantavatar_ns.scripts.camera_path import orbit_path, static_path, turning_path
from instantavatar_ns.scripts.framing import cut_frames, frame_ranges, whole_person_position

# Looks along y, from 3 metres, 34 degrees high.
AHEAD = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, -3], [0, 1, 0, 0], [0, 0, 0, 1]])
SLOPE = 0.3


def camera(matrix=AHEAD, size=(60, 80)):
    focal = size[1] / 2 / SLOPE
    return Cameras(matrix[None, :3], focal, focal, size[0] / 2, size[1] / 2, *size)


def cameras(matrices, size=(60, 80)):
    focal = size[1] / 2 / SLOPE
    return Cameras(matrices[:, :3], focal, focal, size[0] / 2, size[1] / 2, *size)


def person(shift=(0.0, 0.0, 0.0), height=1.7, seed=0):
    """Points in a box as large as a person, around the origin."""
    points = torch.rand(300, 3, generator=torch.Generator().manual_seed(seed)) - 0.5
    return points * torch.tensor([0.9, 0.5, height]) + torch.tensor(shift)


def lying():
    return person()[:, [2, 1, 0]]


def reaching():
    return person(height=2.4, shift=(0.0, 0.0, 0.35))


def walking():
    return torch.stack([person((0.3 * step, -0.2 * step, 0.0)) for step in range(6)])


def test_camera_that_shows_everything_stays():
    for turn in (0.0, 0.7):
        start = AHEAD.clone()
        start[:3] = torch.from_numpy(Rotation.from_rotvec([0, 0, turn]).as_matrix()).float() @ AHEAD[:3]
        position = whole_person_position(start, (SLOPE, SLOPE), person(height=1.2))
        torch.testing.assert_close(position, start[:3, 3], atol=1e-5, rtol=0)


@pytest.mark.parametrize("turn", [0.0, 2.0])
@pytest.mark.parametrize("name", ["lying", "reaching", "walking", "elsewhere"])
def test_static_camera_shows_everything_from_as_near_as_possible(name, turn):
    points = {"lying": lying, "reaching": reaching, "walking": walking}.get(name, lambda: person((4.0, -2.5, 1.0)))()
    points = points.reshape(-1, 300, 3)
    start = AHEAD.clone()
    start[:3, :3] = torch.from_numpy(Rotation.from_euler("zx", [turn, 0.3]).as_matrix()).float() @ AHEAD[:3, :3]
    path = static_path(camera(start), points, 60 / 80)
    torch.testing.assert_close(path[0, :3, :3], start[:3, :3])
    assert not cut_frames(points, cameras(path)).any()
    moved_back = float((path[0, :3, 3] - start[:3, 3]) @ start[:3, 2])
    assert moved_back >= -1e-5, "never nearer than the training camera"
    # Room for clothes and the margin are a fifth of the distance at most.
    nearer = path.clone()
    distance = float((path[0, :3, 3] - points.mean(dim=(0, 1))) @ start[:3, 2])
    nearer[:, :3, 3] -= 0.2 * distance * start[:3, 2]
    assert moved_back < 1e-5 or cut_frames(points, cameras(nearer)).any()


@pytest.mark.parametrize("make", [lying, reaching, walking])
def test_orbit_shows_everything_from_all_sides(make):
    points = make()
    frames = points.expand(24, -1, -1) if points.ndim == 2 else points.repeat_interleave(4, dim=0)
    path = orbit_path(camera(), frames, 60 / 80)
    assert not cut_frames(frames, cameras(path)).any()
    axis = frames.mean(dim=(0, 1))[:2]
    distances = (path[:, :2, 3] - axis).norm(dim=1)
    torch.testing.assert_close(distances, distances[:1].expand(24))
    torch.testing.assert_close(path[:, 2, 3], path[:1, 2, 3].expand(24))
    yaws = torch.atan2(path[:, 1, 0], path[:, 0, 0])
    assert torch.unique((yaws / math.pi * 12).round() % 24).numel() == 24, "once round"


def test_camera_turns_counterclockwise_by_the_angles_given():
    frames = person().expand(3, -1, -1)
    still, quarter, half = turning_path(camera(), frames, 60 / 80, torch.tensor([0.0, 0.5, 1.0]) * math.pi)
    axis = frames.mean(dim=(0, 1))[:2]
    x, y = still[:2, 3] - axis
    torch.testing.assert_close(still[:3, :3], AHEAD[:3, :3])
    # Seen from above, from the person's -y to their +x, and on to +y.
    torch.testing.assert_close(quarter[:2, 3] - axis, torch.stack([-y, x]), atol=1e-5, rtol=0)
    torch.testing.assert_close(half[:2, 3] - axis, torch.stack([-x, -y]), atol=1e-5, rtol=0)
    assert y < -2 and not cut_frames(frames, cameras(torch.stack([still, quarter, half]))).any()


def test_frames_that_cut_are_found():
    path = static_path(camera(), person()[None], 60 / 80).expand(5, 4, 4)
    places = [(0.0, 0.0, 0.0), (3.0, 0.0, 0.0), (0.0, 0.0, 0.6), (0.0, -9.0, 0.0), (0.0, 0.2, 0.0)]
    frames = torch.stack([person(place) for place in places])
    cut = cut_frames(frames, cameras(path))
    assert cut.tolist() == [False, True, True, True, False], "beside, above, behind the camera"
    assert frame_ranges(cut) == "1 to 3" and frame_ranges(~cut) == "0, 4" and frame_ranges(cut & ~cut) == ""
