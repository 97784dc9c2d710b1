"""The renderer: which way serves rays and images, and that all ways show the same."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.rendering import renderer as renderer_module
from instantavatar_ns.rendering import step_buffers
from instantavatar_ns.rendering.image_graphs import ImageGraphs
from instantavatar_ns.rendering.inputs import SampleRules
from instantavatar_ns.rendering.renderer import Renderer
from tests.avatars import Avatar as Body
from tests.rendering.scenes import DEVICE, Scene

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras
STEP = 0.05


@pytest.fixture
def make(scene: Scene, small_avatar: Body, monkeypatch: pytest.MonkeyPatch):
    """Makes renderers; where there is no GPU the search, for which the interpreter takes long, is torch's."""
    if DEVICE == "cpu":
        original = renderer_module.pose_cells
        monkeypatch.setattr(renderer_module, "pose_cells", lambda *arguments: original(*arguments[:3]))

    def make(implementation: Literal["triton", "torch"], *, cuda_graphs: bool = False) -> Renderer:
        by_kernels = implementation == "triton" and DEVICE == "cuda"
        deformer = scene.avatar.deformer if by_kernels else copy.deepcopy(small_avatar.deformer).to(DEVICE)
        avatar = scene.avatar._replace(deformer=deformer)
        return Renderer(avatar, implementation, STEP, megabytes=100.0, cuda_graphs=cuda_graphs)

    return make


@pytest.fixture
def body(scene: Scene) -> PosedBody:
    return PosedBody(scene.world_to_root, scene.bones)


def camera(size: int = 8, **changes: Any) -> Cameras:
    pose = torch.eye(4)[:3]
    pose[:, 3] = torch.tensor([0.0, -0.1, 2.0])
    focal, center = float(size), size / 2
    return Cameras(pose[None], fx=focal, fy=focal, cx=center, cy=center, width=size, height=size, **changes)


def white() -> Tensor:
    return torch.ones(3, device=DEVICE)


def test_image_is_the_same_by_either_implementation(make, body: PosedBody, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = make("torch").render_image(camera(), body, white())
    assert {name: value.shape for name, value in theirs.items()} == {
        "rgb": (8, 8, 3),
        "accumulation": (8, 8, 1),
        "depth": (8, 8, 1),
    }
    assert (theirs["accumulation"] > 0.3).sum() > 3 and (theirs["accumulation"] == 0).sum() > 20

    def no_rays(*_: object, **__: object) -> None:
        raise AssertionError("nerfstudio's generator is slow")

    monkeypatch.setattr(Cameras, "generate_rays", no_rays)
    ours = make("triton").render_image(camera(), body, white())
    for name, value in theirs.items():
        differ = (ours[name] - value).abs().amax(dim=-1) > 2e-3
        assert differ.sum() <= 1, f"{name}: a sample on the border of a cell may be counted to either"


def test_chunks_do_not_change_the_image_and_each_may_be_the_last(make, body: PosedBody) -> None:
    renderer, checks = make("torch"), []
    whole = renderer.render_image(camera(), body, white())
    parts = renderer.render_image(camera(), body, white(), rays_per_chunk=10, check=lambda: checks.append(1))
    assert len(checks) == 7
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value)

    def interrupt() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        renderer.render_image(camera(), body, white(), check=interrupt)


def test_other_cameras_have_nerfstudios_rays(make, body: PosedBody) -> None:
    others: tuple[dict[str, Any], ...] = (
        {"camera_type": CameraType.FISHEYE},
        {"distortion_params": torch.tensor([[0.2, 0.0, 0.0, 0.0, 0.05, 0.0]])},
    )
    for changes in others:
        images = [make(name).render_image(camera(**changes), body, white()) for name in ("triton", "torch")]
        torch.testing.assert_close(images[0]["rgb"], images[1]["rgb"], atol=2e-3, rtol=0)


def test_background_lies_behind_the_person(make, body: PosedBody) -> None:
    renderer, blue = make("torch"), torch.tensor([0.1, 0.2, 0.9], device=DEVICE)
    on_white, on_blue = (renderer.render_image(camera(), body, color) for color in (white(), blue))
    expected = on_white["rgb"] + (blue - 1) * (1 - on_white["accumulation"])
    torch.testing.assert_close(on_blue["rgb"], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_training_rules_give_what_losses_need(make, scene: Scene, implementation: Literal["torch", "triton"]) -> None:
    renderer = make(implementation)
    pose, rules = renderer.prepare(scene.pose.body, scene.pose.cells), SampleRules(STEP, stratified=True)
    space = (torch.rand(40, 3, generator=torch.Generator().manual_seed(4)) - 0.5).to(DEVICE)
    outputs = renderer.render_rays(scene.rays, pose, rules, extra=space)
    torch.testing.assert_close(outputs["extra_density"], scene.avatar.field.density(space)[0])
    (of_space,) = torch.autograd.grad(
        outputs["extra_density"].sum(), scene.avatar.field.encoding.params, retain_graph=True
    )
    assert of_space.count_nonzero() > 0
    outputs["rgb"].sum().backward()
    gradient = scene.avatar.field.density_head.params.grad
    assert gradient is not None and gradient.count_nonzero() > 0
    scene.avatar.field.zero_grad()
    counted = int(outputs["num_samples"])
    assert 36 < counted <= len(outputs["sample_weights"])
    torch.testing.assert_close(outputs["sample_weights"].sum(), outputs["accumulation"].sum(), atol=1e-4, rtol=1e-4)
    assert set(renderer.render_rays(scene.rays, pose)) == {"rgb", "accumulation", "depth"}


def test_only_buffers_of_what_is_differentiated_are_fixed(make, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images lack nothing; a step that overflows lacks a little, once."""
    monkeypatch.setattr(step_buffers, "_SAMPLES_PER_RAY", 1)
    renderer = make("triton")
    pose = renderer.prepare(scene.pose.body, scene.pose.cells)
    with torch.no_grad():
        whole = renderer.render_rays(scene.rays, pose)
    assert renderer.capacity(36) is None
    step = renderer.render_rays(scene.rays, pose)
    assert step["accumulation"].sum() < 0.9 * whole["accumulation"].sum()
    before = renderer.capacity(36)
    for _ in range(4):  # on a GPU a check tells of the one before; samples that were left out had no roots
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        renderer.check_capacity()
        step = renderer.render_rays(scene.rays, pose)
    assert renderer.capacity(36) != before
    torch.testing.assert_close(step["accumulation"], whole["accumulation"], atol=2e-3, rtol=0)


def test_poses_of_images_are_prepared_once_until_forgotten(make, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer_module, "_KEPT", 2)
    renderer = make("torch")
    bodies = [PosedBody(scene.world_to_root, scene.bones) for _ in range(3)]
    kept, dropped = renderer.prepared(bodies[0]), renderer.prepared(bodies[1])
    assert renderer.prepared(bodies[0]) is kept
    renderer.prepared(bodies[2])
    assert renderer.prepared(bodies[0]) is kept, "used last"
    assert renderer.prepared(bodies[1]) is not dropped
    renderer.forget()
    assert renderer.prepared(bodies[0]) is not kept


def test_images_are_captured_where_they_can_and_may_be(
    make, scene: Scene, body: PosedBody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Renderer, "device", torch.device("cuda"))
    field = SimpleNamespace(has_kernels=True)
    for implementation, allowed, expected in (("triton", True, True), ("triton", False, False), ("torch", True, False)):
        renderer = make(implementation, cuda_graphs=allowed)
        renderer.avatar = renderer.avatar._replace(field=field)
        assert renderer.supports_cuda_graphs == expected
    renderer = make("triton", cuda_graphs=True)
    renderer.avatar = renderer.avatar._replace(field=SimpleNamespace(has_kernels=False))
    assert not renderer.supports_cuda_graphs
    monkeypatch.undo()
    monkeypatch.setattr(Renderer, "supports_cuda_graphs", True)
    drawn = []
    monkeypatch.setattr(ImageGraphs, "render", lambda *arguments: drawn.append(arguments) or {})
    renderer = make("triton", cuda_graphs=True)
    assert renderer.render_image(camera(), body, white()) == {}
    (_, pinhole, shown, avatar, rules, _), *_ = drawn
    assert (pinhole.width, pinhole.height) == (8, 8) and shown is body and avatar is renderer.avatar
    assert rules.alpha_threshold > 0 and not renderer._prepared, "graphs prepare poses themselves"
