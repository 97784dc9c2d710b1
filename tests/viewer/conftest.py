"""A model whose field is the body itself, as the viewer sees it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.viewer.utils import CameraState, get_camera

from instantavatar_ns.viewer.controls import ViewerControls
from tests.tiny import build_body


class Scene:
    """Stands in for viser's scene: keeps what was sent last under each name, and counts."""

    def __init__(self) -> None:
        self.nodes, self.sent = {}, 0

    def _add(self, name, *arrays, **options):
        self.nodes[name], self.sent = arrays, self.sent + 1
        return SimpleNamespace(remove=lambda: self.nodes.pop(name))

    add_mesh_simple = add_mesh_trimesh = add_point_cloud = _add


@pytest.fixture(scope="module")
def trained_model(outputs):
    return build_body(outputs)


@pytest.fixture
def model(trained_model):
    """The model before any viewer, its panel untouched."""
    trained_model.viewer_controls = ViewerControls(trained_model.poses)
    trained_model.forget_images()
    return trained_model


@pytest.fixture
def scene(model):
    """The scene of a viewer that is opened on the model."""
    scene = Scene()
    model.viewer_controls.control.viewer = SimpleNamespace(trainer=None)
    model.viewer_controls.control.viser_server = SimpleNamespace(scene=scene)
    return scene


@pytest.fixture(scope="session")
def viewer_camera():
    """Makes cameras as nerfstudio's viewer does: a person's height away, ahead of it."""

    def make(time=0.0, size=48):
        camera_to_world = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, -2.4], [0, 1, 0, 0]])
        return get_camera(CameraState(1.0, 1.0, camera_to_world, CameraType.PERSPECTIVE, time=time, idx=3), size, size)

    return make
