"""Recorded images: those of renderings that run as they are, whatever changes between two of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from instantavatar_ns.body.pose_bank import PosedBody
from instantavatar_ns.cuda_graph import Recording
from instantavatar_ns.data.pinhole_rays import PinholeCamera
from instantavatar_ns.deformer.search import RootBuffer
from instantavatar_ns.occupancy.posed_grid import pose_cells
from instantavatar_ns.rendering import image_buffers, recorded_images
from instantavatar_ns.rendering.image_buffers import ImageBuffers, ImageLayout
from instantavatar_ns.rendering.inputs import Rays, RenderPose, SampleRules
from instantavatar_ns.rendering.outputs import pixel_outputs
from instantavatar_ns.rendering.recorded_images import RecordedImages
from instantavatar_ns.rendering.render_buffers import BufferSizes
from tests.avatars import Avatar as Body
from tests.avatars import random_bones
from tests.rendering.scenes import DEVICE, Scene

RULES = SampleRules(step=0.1, least_alpha=0.01, least_transmittance=0.1)
WHITE = torch.ones(3, device=DEVICE)


@pytest.fixture
def scene(scene: Scene, small_avatar: Body) -> Scene:
    """The scene with the search in torch, where Triton's interpreter would take seconds for it."""
    if DEVICE == "cpu":
        return scene._replace(avatar=scene.avatar._replace(deformer=small_avatar.deformer))
    return scene


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """What is recorded from now on; on a CPU, too, each has its place in memory for what it gives."""
    made: list[Recording] = []

    class Kept(Recording):
        def __init__(self, function: Callable[[], Any], device: torch.device, *, warm: bool) -> None:
            assert warm and sys.gettrace() is None
            super().__init__(function, device, warm=warm)
            self.calls, self.kept = 0, None if self._graph else function()
            made.append(self)

        def __call__(self) -> Any:
            self.calls += 1
            given = super().__call__()
            if self.kept is None:
                return given
            for name, value in given.outputs.items():
                self.kept.outputs[name].copy_(value)
            self.kept.counts.copy_(given.counts)
            return self.kept

    monkeypatch.setattr(recorded_images, "Recording", Kept)
    return made


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> RecordedImages:
    """With buffers of sizes that fit the test's."""
    monkeypatch.setattr(image_buffers, "_MULTIPLE", 64)
    monkeypatch.setattr(image_buffers, "ROUNDS", (3, 0))
    return RecordedImages(ImageBuffers(1e3))


def camera(width: int = 6, height: int = 8, shift: float = 0.0, focal: float = 8.0) -> PinholeCamera:
    """In front of the person."""
    pose = torch.eye(4, device=DEVICE)[:3]
    pose[:, 3] = torch.tensor([shift, -0.1, 2.0])
    intrinsics = torch.tensor([focal, focal, width / 2, height / 2], device=DEVICE)
    return PinholeCamera(width, height, intrinsics, pose)


def body(scene: Scene, number: int = 1) -> PosedBody:
    world_to_root = scene.world_to_root.clone()
    world_to_root[0, 3] += 0.1 * number
    bones = scene.bones if number == 1 else random_bones_of(number)
    return PosedBody(world_to_root, bones)


def random_bones_of(number: int) -> Tensor:
    from tests.avatars import free_avatar

    return random_bones(free_avatar((48, 48, 12)).body, number)[number - 1].to(DEVICE)


def as_it_is(scene: Scene, camera: PinholeCamera, body: PosedBody, background: Tensor = WHITE) -> dict[str, Tensor]:
    """The image by what renders rays that come from anywhere."""
    deformer, occupancy, _ = scene.avatar
    cells = pose_cells(occupancy, deformer, body.bone_transforms, "triton")
    origins, directions = camera.rays()
    rays = Rays(origins, directions.view(-1, 3))
    with torch.no_grad():
        pose = RenderPose(body, deformer.pose(body.bone_transforms), cells)
        pixels, _ = ImageBuffers(1e3).render(rays, pose, scene.avatar, RULES)
    outputs = pixel_outputs(pixels, rays.origins_in_root_space(body), background)
    return {name: value.view(camera.height, camera.width, -1) for name, value in outputs.items()}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text)


def settle(images: RecordedImages, scene: Scene, recorded: list[Recording], *cameras: PinholeCamera) -> None:
    """Render until images of these cameras are recorded."""
    for one in cameras * 3:
        images.render(one, body(scene), scene.avatar, RULES, WHITE)
    assert len(recorded) == len(cameras)


def test_images_follow_pose_camera_background_field_and_occupancy(
    images: RecordedImages, scene: Scene, recorded: list[Recording]
) -> None:
    settle(images, scene, recorded, camera())
    field, occupancy = scene.avatar.field, scene.avatar.occupancy
    density, binaries = field.density_head.params, occupancy.binaries.clone()
    blue = torch.tensor([0.1, 0.2, 0.9], device=DEVICE)
    seen = []

    def check(*arguments: Any) -> None:
        shown, posed, background = arguments
        ours = images.render(shown, posed, scene.avatar, RULES, background)
        assert_same(ours, as_it_is(scene, *arguments))
        seen.append(ours["rgb"])

    check(camera(), body(scene), WHITE)
    check(camera(), body(scene), blue)
    check(camera(), body(scene, 2), WHITE)
    check(camera(shift=0.2, focal=8.5), body(scene), WHITE)
    kept = density.detach().clone()
    with torch.no_grad():
        density.mul_(0.8)
    check(camera(), body(scene), WHITE)
    occupancy.binaries[0, :24] = False
    check(camera(), body(scene), WHITE)
    occupancy.load_state_dict(occupancy.state_dict() | {"binaries": binaries})
    with torch.no_grad():
        density.copy_(kept)
    check(camera(), body(scene), WHITE)
    assert torch.equal(seen[0], seen[-1])
    for other in seen[1:-1]:
        assert (other - seen[0]).abs().max() > 0.05, "what was changed can be seen"
    assert len(recorded) == 1 and recorded[0].calls == 8  # pyright: ignore[reportAttributeAccessIssue]


def test_sizes_alternate_and_images_are_not_overwritten(
    images: RecordedImages, scene: Scene, recorded: list[Recording]
) -> None:
    cameras = camera(), camera(8, 6)  # of as many pixels
    settle(images, scene, recorded, *cameras)
    first = images.render(cameras[0], body(scene), scene.avatar, RULES, WHITE)
    kept = {name: value.clone() for name, value in first.items()}
    for shown in (*cameras, *cameras):
        later = images.render(shown, body(scene, 2), scene.avatar, RULES, WHITE)
        assert later["rgb"].shape == (shown.height, shown.width, 3)
        assert_same(later, as_it_is(scene, shown, body(scene, 2)))
    assert len(recorded) == 2
    assert_same(first, kept)


def test_image_that_overflows_its_buffers_is_recorded_anew(
    images: RecordedImages, scene: Scene, recorded: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_buffers, "_MULTIPLE", 4)
    far, near = camera(focal=3.0), camera(focal=10.0)
    settle(images, scene, recorded, far)
    layout = images._buffers._layouts[48]
    assert_same(images.render(near, body(scene), scene.avatar, RULES, WHITE), as_it_is(scene, near, body(scene)))
    grown = images._buffers._layouts[48]
    assert all(new.samples > old.samples for new, old in zip(grown.rounds, layout.rounds, strict=True))
    for _ in range(2):
        ours = images.render(near, body(scene, 2), scene.avatar, RULES, WHITE)
        assert_same(ours, as_it_is(scene, near, body(scene, 2)))
    assert len(recorded) == 2


def test_image_in_parts_is_recorded(
    images: RecordedImages, scene: Scene, recorded: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_buffers, "_LEAST_RAYS", 8)
    images._buffers.megabytes = 0.03
    settle(images, scene, recorded, camera())
    assert images._buffers._layouts[48].parts > 1
    ours = images.render(camera(), body(scene), scene.avatar, RULES, WHITE)
    assert_same(ours, as_it_is(scene, camera(), body(scene)))


def test_recordings_of_sizes_not_asked_for_are_given_up(
    images: RecordedImages, scene: Scene, recorded: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_images, "_KEPT", 2)
    cameras = camera(2, 2), camera(3, 2), camera(2, 3)
    settle(images, scene, recorded, *cameras[:2])
    images.render(cameras[2], body(scene), scene.avatar, RULES, WHITE)
    assert [*images._sizes] == [(3, 2), (2, 3)]
    images.render(cameras[1], body(scene), scene.avatar, RULES, WHITE)
    images.render(cameras[0], body(scene), scene.avatar, RULES, WHITE)
    assert len(recorded) == 2 and [*images._sizes] == [(3, 2), (2, 2)]


def test_avatar_elsewhere_in_memory_and_other_rules_are_recorded_anew(
    images: RecordedImages, scene: Scene, recorded: list[Recording]
) -> None:
    settle(images, scene, recorded, camera(2, 2))
    params = scene.avatar.field.density_head.params
    params.data = params.data.clone()
    for _ in range(2):
        images.render(camera(2, 2), body(scene), scene.avatar, RULES, WHITE)
    assert len(recorded) == 2
    for _ in range(2):
        images.render(camera(2, 2), body(scene), scene.avatar, SampleRules(step=0.2), WHITE)
    assert len(recorded) == 3


def test_interruptions_do_no_harm(images: RecordedImages, scene: Scene, recorded: list[Recording]) -> None:
    """nerfstudio's viewer ends renderings by exceptions from a tracing function."""
    for _ in range(2):
        images.render(camera(2, 2), body(scene), scene.avatar, RULES, WHITE)
    lines = []

    def interrupt(frame: Any, event: str, _: object) -> Any:
        lines.append(frame.f_code.co_name)
        if frame.f_code.co_name == "render_parts":
            raise KeyboardInterrupt
        return interrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:  # recording is not interrupted, its first use is on CPUs
        with pytest.raises(KeyboardInterrupt):
            images.render(camera(4, 4), body(scene), scene.avatar, RULES, WHITE)
    finally:
        sys.settrace(before)
    assert "render_parts" in lines
    assert (4, 4) not in images._sizes, "kernels may not be loaded yet"
    ours = images.render(camera(2, 2), body(scene), scene.avatar, RULES, WHITE)
    assert_same(ours, as_it_is(scene, camera(2, 2), body(scene)))
    assert len(recorded) == 1


class NoHostReads(TorchDispatchMode):
    """What must not happen in a recording: that the host reads from the device, or sends it something."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "unique_dim"), name
        if name == "index":
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "as many as are set"
        return func(*args, **(kwargs or {}))


def test_recorded_work_reads_nothing_on_the_host(
    images: RecordedImages, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.render(camera(2, 2), body(scene), scene.avatar, RULES, WHITE)
    assert images._inputs is not None
    deformer = scene.avatar.deformer
    # The search in torch does read; its Triton kernels are those of training steps, which are recorded, too.
    posed = deformer.pose(scene.bones)

    integers = torch.zeros(64, dtype=torch.int32, device=DEVICE)
    buffer = RootBuffer(torch.zeros(64, 3, device=DEVICE), integers, integers[:1], integers, integers)
    monkeypatch.setattr(type(deformer), "pose", lambda *_: posed)
    monkeypatch.setattr(type(deformer), "fill", lambda *_: buffer)
    layout = ImageLayout(1, (BufferSizes(64, 64),) * 2)
    with torch.no_grad(), NoHostReads():
        image = recorded_images.draw_image(images._inputs, (2, 2), scene.avatar, RULES, layout)
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            image.counts[0, 0, 0].item()
    assert image.counts[0, 0, 0] > 0
