"""The surface of known densities."""

import numpy as np
import pytest
import torch
import trimesh

from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.export.avatar import hand_vertices
from instantavatar_ns.export.surface import THICKNESS, Body, extract_surface, without_narrows
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.utils.errors import InputError
from tests.avatars import body_density

RADIUS = 0.2
VOXEL = 0.01


@pytest.fixture(scope="module")
def occupancy():
    """A cube of half a metre, occupied everywhere."""
    return CanonicalOccupancy(VoxelBox(torch.full((3,), -0.3), torch.full((3,), 0.3), (16, 16, 16)))


def _ball_with_cavity_and_speck(points):
    """Dense in a ball, but not at its centre, and in a small ball far away."""
    distance = points.norm(dim=-1)
    speck = (points - 0.25).norm(dim=-1) < 0.04
    return 200.0 * (((distance > 0.06) & (distance < RADIUS)) | speck).float()


def test_surface_is_closed_and_where_the_density_is(occupancy):
    surface = extract_surface(_ball_with_cavity_and_speck, occupancy, VOXEL, 2000)
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    assert len(surface.faces) <= 2000
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.body_count == 1
    # The samples lie a voxel apart, so the edge of a step is known to half a voxel.
    assert np.abs(np.linalg.norm(surface.vertices, axis=1) - RADIUS).max() < 0.6 * VOXEL
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.06)
    outwards = surface.vertices / np.linalg.norm(surface.vertices, axis=1, keepdims=True)
    assert ((surface.normals * outwards).sum(axis=1) > 0.9).all()


def test_surface_is_where_two_centimetres_are_half_opaque(occupancy):
    """A density that falls off slowly is cut at the level, not somewhere in its slope."""
    level = np.log(2) / THICKNESS
    surface = extract_surface(
        lambda points: level * (1 + (RADIUS - points.norm(dim=-1)) / 0.04).clamp_min(0), occupancy, VOXEL, 4000
    )
    radii = np.linalg.norm(surface.vertices, axis=1)
    assert np.abs(radii - RADIUS).max() < 0.3 * VOXEL


def test_hollow_that_opens_to_the_outside_ends_below_the_bodys_surface(occupancy):
    """The body may be open itself: its surface winds around what is inside all the same."""
    ball = trimesh.creation.icosphere(3, RADIUS - 0.01)
    open_ball = ball.triangles_center[:, 2] < 0.85 * RADIUS  # a hole 17 cm wide at the other end
    body = Body(ball.vertices, ball.faces[open_ball])

    def hollow(points):
        """A shell two centimetres thick, with a hole five centimetres wide."""
        distance = points.norm(dim=-1)
        hole = (points[..., :2].norm(dim=-1) < 0.025) & (points[..., 2] < 0)
        return 400.0 * ((distance > RADIUS - 0.02) & (distance < RADIUS) & ~hole).float()

    meshes = []
    for solid in (None, body):
        surface = extract_surface(hollow, occupancy, VOXEL, 4000, body=solid)
        meshes.append(trimesh.Trimesh(surface.vertices, surface.faces, process=False))
    without, within = meshes
    whole = 4 / 3 * np.pi * RADIUS**3
    assert without.volume < 0.5 * whole and without.area > 1.6 * within.area
    assert within.volume == pytest.approx(whole, rel=0.08) and within.euler_number == 2


def test_tunnels_and_pits_with_undercuts_are_filled(occupancy):
    """What is too narrow goes; a bay that is wide enough stays."""

    def riddled(points):
        """A ball with a tunnel 1.6 cm wide, a hollow of 4 cm with a neck as narrow, and a bay 8 cm wide."""
        x, y, _ = points.unbind(dim=-1)
        tunnel = (points[..., :2].norm(dim=-1) < 0.008) | ((points[..., 1:].norm(dim=-1) < 0.008) & (x > 0))
        hollow = ((points - points.new_tensor([0.0, -0.15, 0.0])).norm(dim=-1) < 0.02) | (
            (points[..., ::2].norm(dim=-1) < 0.008) & (y < -0.15)
        )
        bay = (points - points.new_tensor([0.0, RADIUS, 0.0])).norm(dim=-1) < 0.04
        return 400.0 * ((points.norm(dim=-1) < RADIUS) & ~tunnel & ~hollow & ~bay).float()

    surface = extract_surface(riddled, occupancy, 0.005, 20_000)
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    assert mesh.is_watertight and mesh.euler_number == 2
    radii = np.linalg.norm(surface.vertices, axis=1)
    in_bay = np.linalg.norm(surface.vertices - [0, RADIUS, 0], axis=1) < 0.05
    assert radii[~in_bay].min() > RADIUS - 0.012, "mouths are dents at most"
    assert radii[in_bay].min() == pytest.approx(RADIUS - 0.04, abs=0.003)


def test_fingers_are_not_webbed(occupancy):
    """Two fingers a centimetre apart, whose tips touch: a ring if they are of a hand, and else one solid."""

    def fingers(points):
        across = torch.stack([points[..., 0].abs() - 0.0125, points[..., 1]], dim=-1).norm(dim=-1)
        palm = (points - points.new_tensor([0.0, 0.0, -0.15])).norm(dim=-1) < 0.06
        touching = (points[..., :2].norm(dim=-1) < 0.015) & ((points[..., 2] - 0.09).abs() < 0.01)
        return 400.0 * (((across < 0.0075) & (points[..., 2].abs() < 0.1)) | palm | touching).float()

    ball = trimesh.creation.icosphere(0, 0.005)
    centers = [np.array([side * 0.0125, 0, along]) for side in (-1, 1) for along in (-0.06, 0, 0.06)]
    vertices = np.concatenate([ball.vertices + center for center in centers])
    faces = np.concatenate([ball.faces + part * len(ball.vertices) for part in range(6)])
    for hands, characteristic in ((True, 0), (False, 2)):
        body = Body(vertices, faces, np.full(len(vertices), hands))
        surface = extract_surface(fingers, occupancy, 0.0033, 20_000, body=body)
        assert trimesh.Trimesh(surface.vertices, surface.faces, process=False).euler_number == characteristic


def test_spikes_are_cut_off_where_depth_was_guessed(occupancy):
    """A spike 1.6 cm thick and 5 cm long: it goes where views do not tell its length, but not from a hand."""
    ball = trimesh.creation.icosphere(3, RADIUS - 0.01)

    def spiked(points):
        spike = (points[..., :2].norm(dim=-1) < 0.008) & (points[..., 2] > 0) & (points[..., 2] < RADIUS + 0.05)
        knob = (points - points.new_tensor([RADIUS, 0.0, 0.0])).norm(dim=-1) < 0.05
        return 400.0 * ((points.norm(dim=-1) < RADIUS) | spike | knob).float()

    lengths = {}
    nowhere, everywhere = np.zeros(len(ball.vertices), bool), np.ones(len(ball.vertices), bool)
    folded = everywhere.copy()
    folded[ball.vertices[:, 2].argmax()] = False  # a single vertex that is told otherwise changes nothing
    top = ball.vertices[:, 2] > 0.15
    for name, hands, guessed in (
        ("seen", nowhere, nowhere),
        ("guessed", nowhere, everywhere),
        ("folded", nowhere, folded),
        ("hand", top, everywhere),
    ):
        body = Body(ball.vertices, ball.faces, hands, guessed)
        surface = extract_surface(spiked, occupancy, 0.0075, 20_000, body=body)
        mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
        assert mesh.is_watertight and mesh.euler_number == 2
        assert mesh.bounds[1, 0] == pytest.approx(RADIUS + 0.05, abs=0.004), "the knob is thick enough"
        lengths[name] = mesh.bounds[1, 2] - RADIUS
    assert lengths["guessed"] < 0.013 and lengths["folded"] < 0.013
    assert lengths["seen"] > 0.04
    assert lengths["hand"] == pytest.approx(0.02, abs=0.004), "what is up to 3 cm from the hand's vertices stays"


def test_hands_are_the_outer_ends_of_the_arms(small_avatar):
    hands = hand_vertices(small_avatar.body)
    side = small_avatar.vertices[:, 0].numpy()
    assert 0.02 < hands.mean() < 0.4 and (side[hands] > 0).any() and (side[hands] < 0).any()
    assert np.abs(side[hands]).min() > 0.8 * np.abs(side[~hands]).max()


def test_narrows_are_filled_in_all_directions_alike():
    """Slits of three samples along the axes, and as wide ones across them, and none of many samples."""
    x, y, z = np.mgrid[-20:21, -20:21, -20:21]
    for slit in (x, y, z, (x + y) / np.sqrt(2), (x + y + z) / np.sqrt(3)):
        for width, filled in ((3.0, True), (11.0, False)):
            grid = (np.abs(slit) > width / 2).astype(np.float32)
            assert (without_narrows(grid, 3)[15:-15, 15:-15, 15:-15].min() == 1) == filled
    assert (without_narrows(grid, 0) == grid).all()


def test_depth_is_the_distance_to_the_bodys_surface_inside_of_it():
    """An eighth of a ball has it in closed form; its triangles cut off up to 0.4 mm, and have samples 4 mm apart."""
    ball = trimesh.creation.icosphere(4, RADIUS)
    axes = [shift + 0.003 * torch.arange(83) for shift in (0.0, 0.001, 0.002)]
    depth = Body(ball.vertices, ball.faces).depth(axes)
    points = np.stack(np.meshgrid(*(axis.numpy() for axis in axes), indexing="ij"), axis=-1)
    true = RADIUS - np.linalg.norm(points, axis=-1)
    margin = 0.0105  # between coarse samples, each of which decides for the fine ones up to the next
    shell = (true > margin) & (true < 0.03 - margin)
    assert shell.sum() > 10_000 and np.abs(depth - true)[shell].max() < 1e-3
    assert (depth[(true < -margin) | (true > 0.03 + margin)] == 0).all()
    assert depth.dtype == np.float32 and depth.max() <= np.float32(0.03)


def test_body_winds_around_what_is_inside():
    """Of 600 triangles or fewer, which is no simplified body, all points are told but those that touch it."""
    ball = trimesh.creation.icosphere(2, RADIUS)
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (20_000, 3))
    within = Body(ball.vertices, ball.faces).winds_around(torch.from_numpy(points)).numpy()
    radii = np.linalg.norm(points, axis=1)
    assert within[radii < 0.97 * RADIUS].all() and not within[radii > RADIUS].any()


def test_surface_of_a_body(small_avatar):
    """A body's surface is closed, keeps its volume, and lies a centimetre outside, as the density does."""
    pytest.importorskip("rtree", reason="rtree is not installed, and trimesh finds no closest points without it")
    density = body_density(small_avatar.vertices, small_avatar.body.faces)
    occupancy = CanonicalOccupancy(small_avatar.deformer.box)
    occupancy.refresh(density)
    surface = extract_surface(density, occupancy, 0.012, 6000)
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    assert mesh.is_watertight and mesh.volume > 0
    body = trimesh.Trimesh(small_avatar.vertices.numpy(), small_avatar.body.faces.numpy(), process=False)
    _, distance, _ = trimesh.proximity.closest_point(body, surface.vertices[::20])
    assert distance.mean() == pytest.approx(0.01, abs=0.004)


def test_nothing_opaque_is_an_error(occupancy):
    with pytest.raises(InputError, match=r"trained avatar.*at most 0% opaque"):
        extract_surface(lambda points: torch.zeros(len(points)), occupancy, VOXEL, 100)


def _rough(seed, roughness=0.02):
    """A ball with four limbs, its surface moved by noise of wavelengths of a few voxels: tunnels, spikes and sheets."""
    noise = torch.randn(1, 1, 140, 140, 140, generator=torch.Generator().manual_seed(seed))
    noise = torch.nn.functional.avg_pool3d(noise, 3, 1, 1)
    noise *= roughness / noise.std()

    def density(points):
        distance = points.norm(dim=-1) - 0.13
        for axis in range(2):
            beside = points.clone()
            beside[:, axis] -= points[:, axis].clamp(-0.24, 0.24)
            distance = torch.minimum(distance, beside.norm(dim=-1) - 0.025)
        moved = torch.nn.functional.grid_sample(noise, points.view(1, 1, 1, -1, 3) / 0.3, align_corners=True)
        return 300 * torch.sigmoid(-(distance + moved.view(-1)) / 0.002)

    return density


@pytest.mark.parametrize(("seed", "max_faces"), [(0, 30_000), (1, 8000), (2, 4000)])
def test_surface_of_a_rough_density_is_closed(occupancy, seed, max_faces):
    surface = extract_surface(_rough(seed), occupancy, 0.005, max_faces)
    assert 0.85 * max_faces < len(surface.faces) <= max_faces
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    merged = trimesh.Trimesh(surface.vertices, surface.faces)
    assert merged.is_watertight, "viewers merge by position"
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-5)
    # No limb is lost: they reach 24 cm and are 2.5 cm thick.
    assert (np.abs(mesh.bounds[:, :2]) > 0.24).all()


def test_surface_of_too_few_triangles_is_an_error(occupancy):
    with pytest.raises(InputError, match=r"--max-faces: expected enough triangles.*found 6.*Allow more"):
        extract_surface(_rough(0), occupancy, 0.005, 6)


def test_surface_is_smooth_where_nothing_was_seen_only(occupancy):
    """Bumps on the unseen cap of the ball go, those of the other cap stay, and the mesh stays closed and as large."""
    bumps, bends, volumes = [], [], []
    for unseen in (None, lambda points: points[:, 2] < 0):
        surface = extract_surface(_rough(0, 0.008), occupancy, 0.008, 6000, unseen)
        mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
        assert mesh.is_watertight and mesh.is_winding_consistent, "no boundary edges"
        height, radius = mesh.vertices[:, 2], np.linalg.norm(mesh.vertices, axis=1)
        bumps.append([radius[cap].std() for cap in (height < -0.08, height > 0.08)])
        angles, heights = mesh.face_adjacency_angles, mesh.vertices[mesh.face_adjacency_edges][:, :, 2].mean(axis=1)
        bends.append(np.median(angles[heights < -0.08]))
        volumes.append(mesh.volume)
    (rough_unseen, rough_seen), (smooth_unseen, smooth_seen) = bumps
    assert smooth_unseen < 0.8 * rough_unseen and bends[1] < 0.75 * bends[0]
    assert smooth_seen == pytest.approx(rough_seen, rel=0.1)
    assert volumes[1] == pytest.approx(volumes[0], rel=0.06)
