"""Overlays lie where the person is, and are sent when they change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.poses import posed_joints
from instantavatar_ns.data.subject import subject_of
from instantavatar_ns.rendering.renderer import Renderer
from instantavatar_ns.viewer.scene_overlays import bars
from tests.dependencies import interpreted_only

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras

SCALE = 10.0


@pytest.fixture
def draw(model, scene, viewer_camera):
    """Ticks overlays, renders at a time and returns what was sent."""

    def draw(*names, time=0.0):
        for name, checkbox in model.viewer_controls.scene._boxes.items():
            checkbox.value = name in names
        outputs = model.get_outputs_for_camera(viewer_camera(time))
        return {name.removeprefix("/avatar/"): arrays for name, arrays in scene.nodes.items()}, outputs

    return draw


def to_world(outputs, points):
    world_to_dataset = subject_of(outputs.metadata).world_to_dataset
    return (points - world_to_dataset[:3, 3]) @ world_to_dataset[:3, :3] * SCALE


def test_body_and_skeleton_lie_on_the_posed_body(draw, outputs) -> None:
    poses, body = subject_of(outputs.metadata).poses, load_body_model(subject_of(outputs.metadata).body_model)
    (vertices, faces) = draw("Body mesh", "Skeleton")[0]["Body mesh"]
    expected = body.vertices(poses.betas, poses.global_orient[:1], poses.body_pose[:1], poses.transl[:1])[0]
    # Half a centimetre: the body's pose-dependent offsets are left out, as in the deformer.
    np.testing.assert_allclose(vertices, to_world(outputs, expected), atol=0.05)
    assert np.array_equal(faces, body.faces)

    bar_vertices, _ = draw("Skeleton")[0]["Skeleton"]
    ends = bar_vertices.reshape(23, 2, 4, 3).mean(axis=2)
    joints = to_world(outputs, posed_joints(body, poses)[0]).numpy()
    np.testing.assert_allclose(ends[:, 1], joints[1:], atol=0.01)
    np.testing.assert_allclose(ends[:, 0], joints[body.parents[1:]], atol=0.01)


def test_grids_surround_the_body(draw) -> None:
    nodes, _ = draw("Body mesh", "Union box", "Union cells", "Pose cells", time=0.5)
    body, box = nodes["Body mesh"][0], nodes["Union box"][0]
    low, high = body.min(axis=0), body.max(axis=0)
    assert (box.min(axis=0) < low).all() and (box.max(axis=0) > high).all()
    tree = trimesh.proximity.cKDTree(body)
    for name in ("Union cells", "Pose cells"):
        points = nodes[name][0]
        assert len(points) > 100 and (points.min(axis=0) < low).all() and (points.max(axis=0) > high).all()
        assert (points > box.min(axis=0)).all() and (points < box.max(axis=0)).all()
    distance, _ = tree.query(nodes["Pose cells"][0])
    assert distance.max() < 0.35 * SCALE, "the cells of this pose lie around it"
    # Of all poses there are cells away from this one.
    assert len(nodes["Union cells"][0]) > len(nodes["Pose cells"][0]) / 2


def test_overlays_are_sent_when_pose_or_grid_change_and_go_when_unticked(draw, model, scene) -> None:
    draw("Skeleton", "Union box")
    assert scene.sent == 2
    draw("Skeleton", "Union box")
    assert scene.sent == 2
    draw("Skeleton", "Union box", time=1.0)
    assert scene.sent == 4
    model.refresh_occupancy(140)
    draw("Skeleton", "Union box", time=1.0)
    assert scene.sent == 6
    assert set(draw("Union box", time=1.0)[0]) == {"Union box"} and scene.sent == 6
    assert draw()[0] == {}


def test_person_is_drawn_behind_what_lies_within(draw) -> None:
    without, box, mesh = (draw(*names)[1]["depth"] for names in ((), ("Union box",), ("Body mesh",)))
    assert torch.equal(without, box)
    torch.testing.assert_close(mesh, without + 1.0)


def test_bars_are_closed_and_as_long_and_thick_as_asked() -> None:
    starts, ends = np.zeros((3, 3)), np.array([[1.0, 0, 0], [0, -2.0, 0], [0.3, 0.4, 1.2]])
    vertices, faces = bars(starts, ends, 0.1)
    for part, length in enumerate((1.0, 2.0, 1.3)):
        mesh = trimesh.Trimesh(vertices[8 * part : 8 * part + 8], faces[12 * part : 12 * part + 12] - 8 * part)
        assert mesh.is_watertight and abs(mesh.volume) == pytest.approx(length * 2 * 0.1**2)
    assert np.isfinite(bars(starts[:1], starts[:1], 0.1)[0]).all(), "a bone without length"


def test_cameras_are_shown_and_hidden(model, scene) -> None:
    overlays, viewer = model.viewer_controls.scene, model.viewer_controls.control.viewer
    overlays._show_cameras(None)  # they are not drawn yet
    viewer.camera_handles, calls = {}, []
    viewer.set_camera_visibility = calls.append
    for shown in (False, True):
        overlays._cameras.value = shown
        overlays._show_cameras(None)
    assert calls == [False, True]


def test_body_is_painted_by_what_the_training_views_show(draw, model, scene) -> None:
    overlays = model.viewer_controls.scene
    assert not draw("Seen")[0] and "not recorded" in overlays._message.text and not overlays._boxes["Seen"].value
    unseen = torch.zeros(len(model.poses.body.skinning_weights))
    unseen[:100] = 1.0
    overlays._unseen = lambda: unseen
    nodes, outputs = draw("Seen")
    (mesh,) = nodes["Seen"]
    np.testing.assert_allclose(mesh.vertices, draw("Body mesh")[0]["Body mesh"][0], atol=1e-5)
    red, green = mesh.visual.vertex_colors[:, :2].astype(int).T
    assert (red[:100] > 2 * green[:100]).all() and (green[100:] > 1.5 * red[100:]).all()
    torch.testing.assert_close(outputs["depth"], draw()[1]["depth"] + 1.0)


@interpreted_only
def test_captured_images_have_overlays_and_cells_only_where_they_are_shown(draw, model, scene, monkeypatch) -> None:
    monkeypatch.setattr(model.renderer, "implementation", "triton")
    monkeypatch.setattr(Renderer, "supports_cuda_graphs", True)
    assert set(draw("Body mesh")[0]) == {"Body mesh"} and not model.renderer._prepared
    assert len(draw("Pose cells")[0]["Pose cells"][0]) > 100
