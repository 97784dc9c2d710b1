"""The viewer's panel changes the viewer's images, and no others."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from nerfstudio.model_components import renderers
from nerfstudio.viewer.utils import parse_object
from nerfstudio.viewer.viewer_elements import ViewerControl, ViewerElement

from instantavatar_ns.viewer.motion_controls import FRAME, REST

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras


def rgb(model, camera):
    return model.get_outputs_for_camera(camera)["rgb"]


def show_rest_pose_with_a_bent_elbow(model):
    model.viewer_controls.motion._shown.value = REST
    model.viewer_controls.pose.slider("left arm", "Elbow, bend").value = 90.0
    model.viewer_controls.scene._background.value = (0, 0, 255)


def test_elements_are_found_on_the_model_in_folders(model) -> None:
    found = parse_object(SimpleNamespace(model=model), ViewerElement, "Custom Elements")
    folders = {path.rsplit("/", 1)[0] for path, _ in found}
    assert folders == {f"Custom Elements/model/viewer_controls/{name}" for name in ("motion", "pose", "scene")}
    names = [element.name for path, element in found if "/motion/" in path]
    assert names[:2] == ["Show", "Training frame"], "in the order in which they were added"
    controls = [element for _, element in parse_object(SimpleNamespace(model=model), ViewerControl, "")]
    assert model.viewer_controls.control in controls and model.opening_view in controls


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
    model.viewer_controls.scene._background.value = (255, 0, 51)
    image = model.get_outputs_for_camera(viewer_camera())
    empty = image["accumulation"][..., 0] == 0
    assert empty.any() and torch.equal(image["rgb"][empty].unique(dim=0), torch.tensor([[1.0, 0.0, 0.2]]))
    model.viewer_controls.scene._background.value = (math.nan, 0.0, 0.0)
    assert torch.equal(rgb(model, viewer_camera())[empty][0], torch.tensor([1.0, 0.0, 0.0])), "a word is no colour"
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


def test_panel_adds_nothing_to_checkpoints(model) -> None:
    assert not [name for name in model.state_dict() if name.startswith("viewer_controls")]
