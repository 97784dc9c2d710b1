"""The viewer's panel changes the viewer's images, and no others."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nerfstudio.model_components import renderers
from nerfstudio.viewer.utils import parse_object
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO as SCALE
from nerfstudio.viewer.viewer_elements import ViewerControl, ViewerElement

from instantavatar_ns.viewer.motion_controls import FRAME, REST
from instantavatar_ns.viewer.scene_overlays import posed_vertices, to_scene

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras


def rgb(model, camera):
    return model.get_outputs_for_camera(camera)["rgb"]


def show_rest_pose_with_a_bent_elbow(model):
    model.viewer_controls.motion._shown.value = REST
    model.viewer_controls.pose.slider("left arm", "Elbow, bend").value = 90.0
    model.viewer_controls.scene._background.value = "#0000ff"


def test_viewer_finds_what_sets_it_up_and_no_elements_to_bury(model) -> None:
    assert not parse_object(SimpleNamespace(model=model), ViewerElement, "Custom Elements")
    controls = [element for _, element in parse_object(SimpleNamespace(model=model), ViewerControl, "")]
    assert model.viewer_controls.control in controls and model.opening_view in controls


def test_names_fit_beside_their_controls(model) -> None:
    """Letters beyond these are cut by viser, which leaves 103 pixels and breaks lines between words."""
    controls = model.viewer_controls
    folders = (controls.motion, controls.pose, controls.scene, controls.film, controls.export)
    assert [folder.title for folder in folders] == ["Avatar", "Joints", "Scene", "Film", "Export"]
    assert [element.name for element in controls.motion.elements[:2]] == ["Show", "Training frame"]
    names = [element.name for folder in folders for element in folder.elements]
    assert max(len(word) for name in names for word in name.split()) <= 11 and max(map(len, names)) <= 22


def test_viewers_cameras_see_what_the_panel_shows(model, scene, viewer_camera) -> None:
    images = [rgb(model, viewer_camera())]
    motion = model.viewer_controls.motion
    motion._shown.value = FRAME
    assert torch.equal(rgb(model, viewer_camera(time=1.0)), images[0]), "frame 0, whatever the time"
    motion._frame.value = 2
    images.append(rgb(model, viewer_camera()))
    motion._shown.value = REST
    images.append(rgb(model, viewer_camera()))
    model.viewer_controls.pose.slider("left arm", "Elbow, bend").value = 90.0
    images.append(rgb(model, viewer_camera()))
    for index, image in enumerate(images):
        assert (image < 0.9).any(dim=-1).float().mean() > 0.03, "somebody is there"
        assert all((image - other).abs().amax(dim=-1).gt(0.2).sum() > 10 for other in images[:index])


def test_time_is_nerfstudios_until_something_else_is_chosen(model, scene, viewer_camera) -> None:
    sequence = [rgb(model, viewer_camera(time)) for time in (0.0, 0.5)]
    assert torch.equal(rgb(model, viewer_camera(math.nan)), sequence[0]), "a word is no time"
    model.viewer_controls.control = ViewerControl()
    assert all(torch.equal(rgb(model, viewer_camera(t)), image) for t, image in zip((0.0, 0.5), sequence, strict=True))


def test_joints_are_bent_on_top_of_time_too(model, scene, viewer_camera) -> None:
    straight = [rgb(model, viewer_camera(time)) for time in (0.0, 0.5)]
    model.viewer_controls.pose.slider("left arm", "Elbow, bend").value = 120.0
    bent = [rgb(model, viewer_camera(time)) for time in (0.0, 0.5)]
    assert all((one - other).abs().max() > 0.3 for one, other in zip(straight, bent, strict=True))
    assert (bent[0] - bent[1]).abs().max() > 0.3


def test_panel_changes_no_image_of_a_data_set_or_of_ns_render(model, scene, outputs, viewer_camera) -> None:
    dataset_camera = outputs.cameras[2:3]
    dataset_camera.rescale_output_resolution(0.3)
    path_camera = viewer_camera(time=0.5)  # of ns-render camera-path: a time, no metadata
    path_camera.metadata = None
    before = [rgb(model, camera) for camera in (dataset_camera, path_camera)]
    show_rest_pose_with_a_bent_elbow(model)
    after = [rgb(model, camera) for camera in (dataset_camera, path_camera)]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_camera_index_alone_is_no_viewer(model, viewer_camera) -> None:
    """`ns-render camera-path --camera-idx` gives its cameras a `cam_idx` as well."""
    before = rgb(model, viewer_camera())
    show_rest_pose_with_a_bent_elbow(model)
    assert torch.equal(rgb(model, viewer_camera()), before)


def test_unbent_poses_are_the_models_and_bent_ones_are_kept_too(model, scene, viewer_camera) -> None:
    controls, of_time = model.viewer_controls, model.poses.frame(2)
    assert controls.shown_pose(lambda: of_time) is of_time
    controls.motion._shown.value = REST
    assert controls.shown_pose(lambda: of_time) is model.poses.rest
    slider = controls.pose.slider("left arm", "Elbow, bend")
    bodies = []
    for angle in (30.0, 60.0, 30.0):
        slider.value = angle
        bodies.append(controls.shown_pose(lambda: of_time))
    assert bodies[0] is bodies[2] and bodies[0] is not bodies[1]


def test_loaded_motion_starts_where_the_person_stands(model, scene, demo_subject) -> None:
    motion = model.viewer_controls.motion
    motion._file.value = str(demo_subject / "novel" / "poses.npz")
    motion._load_file(None)
    assert motion.message == ""
    first = model.poses.frame(0)
    shown = model.viewer_controls.shown_pose(lambda: first)
    assert model.viewer_controls.shown_pose(lambda: first) is shown
    place, stand = (torch.linalg.inv(body.world_to_root)[:3, 3] for body in (shown, first))
    torch.testing.assert_close(place, stand, atol=0.05, rtol=0)
    assert (shown.bone_transforms - first.bone_transforms).abs().max() > 0.1


def test_background_has_the_chosen_color(model, scene, viewer_camera) -> None:
    background = model.viewer_controls.scene._background
    background.value = " #ff0033 "
    image = model.get_outputs_for_camera(viewer_camera())
    empty = image["accumulation"][..., 0] == 0
    assert empty.any() and torch.equal(image["rgb"][empty].unique(dim=0), torch.tensor([[1.0, 0.0, 0.2]]))
    for text in ("#2", "", "no colour", "#12345", "rgb(1"):
        background.value = text
        assert torch.equal(rgb(model, viewer_camera())[empty][0], torch.tensor([1.0, 0.0, 0.2])), "the one before"
    background.value = "red"
    assert torch.equal(rgb(model, viewer_camera())[empty][0], torch.tensor([1.0, 0.0, 0.0]))
    with renderers.background_color_override_context(torch.tensor([0.0, 1.0, 0.0])):
        image = rgb(model, viewer_camera())
    assert torch.equal(image[empty].unique(dim=0), torch.tensor([[0.0, 1.0, 0.0]])), "a cropped view has its own"


def test_interrupted_rendering_leaves_nothing_behind(model, scene, viewer_camera, monkeypatch) -> None:
    show_rest_pose_with_a_bent_elbow(model)
    model.viewer_controls.scene._boxes["Body mesh"].value = True

    def interrupt(*_, **__):
        assert renderers.BACKGROUND_COLOR_OVERRIDE is not None
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(model.renderer, "render_image", interrupt)
        with pytest.raises(InterruptedError):
            rgb(model, viewer_camera())
    assert renderers.BACKGROUND_COLOR_OVERRIDE is None and not scene.nodes
    rgb(model, viewer_camera())
    assert list(scene.nodes) == ["/avatar/Body mesh"]


@pytest.mark.parametrize("size", [0, -7])
def test_resolution_of_nothing_is_one_pixel(model, scene, viewer_camera, size) -> None:
    camera = viewer_camera(size=size)
    outputs = model.get_outputs_for_camera(camera)
    assert outputs["rgb"].shape == (1, 1, 3) and outputs["depth"].shape == (1, 1, 1)
    assert outputs["rgb"].isfinite().all() and (int(camera.height), int(camera.width)) == (1, 1)


@pytest.mark.parametrize("state", ["training", "paused"])
def test_playing_leaves_time_to_a_training_that_runs(model, scene, viewer_camera, monkeypatch, state) -> None:
    model.viewer_controls.control.viewer.trainer = SimpleNamespace(training_state=state)
    left = []
    monkeypatch.setattr(model.viewer_controls.motion, "leave_time", left.append)
    rgb(model, viewer_camera())
    assert (len(left) == 1 and left[0] > 0) if state == "training" else not left


class Client:
    """A browser, and where it was told to look from."""

    def __init__(self, aspect: float = 1.6) -> None:
        self.camera = SimpleNamespace(fov=1.3, aspect=aspect, position=(3.0, -30.0, 8.0))
        self.atomic = nullcontext


def seen(camera, points):
    """Pixel coordinates of points, those between -1 and 1 are in the picture, and depth; x right, y up."""
    position, target = np.array(camera.position) / SCALE, np.array(camera.look_at) / SCALE
    ahead = (target - position) / np.linalg.norm(target - position)
    right = np.cross(ahead, (0, 0, 1))
    right /= np.linalg.norm(right)
    relative, half = points - position, math.tan(camera.fov / 2)
    depth = relative @ ahead
    return relative @ right / depth / half / camera.aspect, relative @ np.cross(right, ahead) / depth / half, depth


@pytest.mark.parametrize("aspect", [1.6, 0.5])
def test_buttons_look_at_the_whole_person(model, scene, viewer_camera, aspect) -> None:
    controls = model.viewer_controls
    body = model.poses.rest
    controls.motion._shown.value = REST
    controls._look_at_all(SimpleNamespace(client=Client()))  # nothing was rendered yet
    rgb(model, viewer_camera())
    person = controls._person()
    points = to_scene(posed_vertices(person, body), body) / SCALE
    ways = {}
    for side in ("Front", "Side", "Back", None):
        event = SimpleNamespace(client=Client(aspect), target=SimpleNamespace(value=side))
        (controls._look_at_all if side is None else controls._look_from)(event)
        camera = event.client.camera
        x, y, depth = seen(camera, points)
        assert (depth > 0.1).all() and max(np.abs(x).max(), np.abs(y).max()) < 1, "all of it is in the picture"
        assert max(np.ptp(x), np.ptp(y)) > 1, "and fills half of it"
        way = np.array(camera.position) - np.array(camera.look_at)
        ways[side] = way / np.linalg.norm(way)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    moved = np.array((0.3, -3.0, 0.8)) - middle
    np.testing.assert_allclose(ways[None], moved / np.linalg.norm(moved), atol=1e-5)
    np.testing.assert_allclose(ways["Front"], -ways["Back"], atol=1e-6)
    # The first training frame shows the person's front to a camera at -y.
    assert ways["Front"][1] < -0.9 and ways["Side"][0] > 0.9, "the person's left is on the right of its front"


def test_panel_adds_nothing_to_checkpoints(model) -> None:
    assert not [name for name in model.state_dict() if name.startswith("viewer_controls")]
