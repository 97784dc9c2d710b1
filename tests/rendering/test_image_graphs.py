"""Images as CUDA graphs: the same as kernel by kernel, whatever changes between two of them."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.deformer.skinning_grid import canonical_box
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.field.hash_encoding import HashGrid
from instantavatar_ns.occupancy.posed_grid import pose_cells
from instantavatar_ns.rendering import capacity, image_buffers, image_graphs
from instantavatar_ns.rendering.capacity import BufferSizes
from instantavatar_ns.rendering.image_buffers import ImageBuffers, ImageLayout
from instantavatar_ns.rendering.image_graphs import Image, ImageGraphs, ImageInputs
from instantavatar_ns.rendering.inputs import Rays, RenderPose, SampleRules
from instantavatar_ns.rendering.outputs import pixel_outputs
from instantavatar_ns.rendering.packed import render_packed
from instantavatar_ns.utils.cuda_graph import CudaGraph
from instantavatar_ns.utils.pinhole_rays import PinholeCamera
from tests.avatars import Avatar as Body
from tests.rendering.scenes import DEVICE, Scene

RULES = SampleRules(step=0.1, alpha_threshold=0.01, early_stop_eps=0.1)
WHITE = torch.ones(3, device=DEVICE)


@pytest.fixture
def quick(scene: Scene, small_avatar: Body, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The scene with search and grid in torch, where Triton's interpreter would take seconds for them."""
    if DEVICE == "cuda":
        return scene
    monkeypatch.setattr(image_graphs, "pose_cells", lambda *arguments: pose_cells(*arguments[:3], "torch"))
    return scene._replace(avatar=scene.avatar._replace(deformer=small_avatar.deformer))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of one colour, that of the background, for tests of what is captured when."""

    def draw(inputs: ImageInputs, size: tuple[int, int], *_: object) -> Image:
        rays = size[0] * size[1]
        single = torch.zeros(rays, 1, device=DEVICE)
        outputs = {"rgb": inputs.background.expand(rays, 3).clone(), "accumulation": single, "depth": single.clone()}
        return Image(outputs, torch.ones(1, 2, 2, dtype=torch.int32, device=DEVICE))

    monkeypatch.setattr(image_graphs, "draw_image", draw)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[CudaGraph]:
    """What is captured from now on; on a CPU, too, each has its place in memory for what it gives."""
    made: list[CudaGraph] = []

    class Kept(CudaGraph):
        def __init__(self, function: Callable[[], Any], device: torch.device, *, warm: bool) -> None:
            assert warm and sys.gettrace() is None
            super().__init__(function, device, warm=warm)
            self.calls, self.kept = 0, None
            made.append(self)

        def __call__(self) -> Any:
            self.calls += 1
            given = super().__call__()
            if self.kept is None:
                self.kept = given
            for name, value in given.outputs.items():
                self.kept.outputs[name].copy_(value)
            self.kept.counts.copy_(given.counts)
            return self.kept

    monkeypatch.setattr(image_graphs, "CudaGraph", Kept)
    return made


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> ImageGraphs:
    """With buffers of sizes that fit the test's."""
    monkeypatch.setattr(capacity, "_MULTIPLE", 64)
    monkeypatch.setattr(image_buffers, "ROUNDS", (3, 0))
    return ImageGraphs(ImageBuffers(1e3))


def camera(width: int = 6, height: int = 8, shift: float = 0.0, focal: float = 8.0) -> PinholeCamera:
    """In front of the person."""
    pose = torch.eye(4, device=DEVICE)[:3]
    pose[:, 3] = torch.tensor([shift, -0.1, 2.0])
    intrinsics = torch.tensor([focal, focal, width / 2, height / 2], device=DEVICE)
    return PinholeCamera(width, height, intrinsics, pose)


def body(quick: Scene, *, bent: bool = False) -> PosedBody:
    """A pose, and another one elsewhere."""
    if not bent:
        return PosedBody(quick.world_to_root, quick.bones)
    half_turn = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0], device=DEVICE))
    elsewhere = quick.world_to_root.clone()
    elsewhere[0, 3] += 0.1
    return PosedBody(elsewhere, half_turn @ quick.bones)


def as_it_is(quick: Scene, camera: PinholeCamera, body: PosedBody, background: Tensor = WHITE) -> dict[str, Tensor]:
    """The image by what renders rays that come from anywhere."""
    deformer, occupancy, _ = quick.avatar
    cells = image_graphs.pose_cells(occupancy, deformer, body.bone_transforms, "triton")
    origins, directions = camera.rays()
    rays = Rays(origins, directions.view(-1, 3))
    with torch.no_grad():
        pose = RenderPose(body, deformer.pose(body.bone_transforms, occupancy.binaries[0]), cells)
        pixels, _ = ImageBuffers(1e3).render(rays, pose, quick.avatar, RULES)
    outputs = pixel_outputs(pixels, rays.origins_in_root_space(body), background)
    return {name: value.view(camera.height, camera.width, -1) for name, value in outputs.items()}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text)


def settle(images: ImageGraphs, quick: Scene, captured: list[CudaGraph], *cameras: PinholeCamera) -> None:
    """Render until images of these cameras are captured."""
    for one in cameras * 3:
        images.render(one, body(quick), quick.avatar, RULES, WHITE)
    assert len(captured) == len(cameras)


def test_images_follow_pose_camera_background_field_and_occupancy(
    images: ImageGraphs, quick: Scene, captured: list[CudaGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "_MULTIPLE", 128)  # all of these images fit
    settle(images, quick, captured, camera())
    field, occupancy = quick.avatar.field, quick.avatar.occupancy
    density, binaries = field.density_head.params, occupancy.binaries.clone()
    blue = torch.tensor([0.1, 0.2, 0.9], device=DEVICE)
    seen = []

    def check(*arguments: Any) -> None:
        shown, posed, background = arguments
        ours = images.render(shown, posed, quick.avatar, RULES, background)
        assert_same(ours, as_it_is(quick, *arguments))
        seen.append(ours["rgb"])

    check(camera(), body(quick), WHITE)
    check(camera(), body(quick), blue)
    check(camera(), body(quick, bent=True), WHITE)
    check(camera(shift=0.2, focal=8.5), body(quick), WHITE)
    kept = density.detach().clone()
    with torch.no_grad():
        density.mul_(0.6)
    check(camera(), body(quick), WHITE)
    occupancy.binaries[0, :24] = False
    check(camera(), body(quick), WHITE)
    occupancy.load_state_dict(occupancy.state_dict() | {"binaries": binaries})
    with torch.no_grad():
        density.copy_(kept)
    check(camera(), body(quick), WHITE)
    assert torch.equal(seen[0], seen[-1])
    for other in seen[1:-1]:
        assert (other - seen[0]).abs().max() > 0.05, "what was changed can be seen"
    assert len(captured) == 1 and captured[0].calls == 8  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.usefixtures("plain")
def test_sizes_alternate_and_images_are_not_overwritten(
    images: ImageGraphs, quick: Scene, captured: list[CudaGraph]
) -> None:
    cameras = camera(), camera(8, 6)  # of as many pixels
    settle(images, quick, captured, *cameras)
    rendered = []
    for number in range(6):
        shown, background = cameras[number % 2], WHITE * number / 6
        outputs = images.render(shown, body(quick), quick.avatar, RULES, background)
        assert outputs["rgb"].shape == (shown.height, shown.width, 3) and outputs["depth"].shape[2:] == (1,)
        rendered.append((outputs["rgb"], background))
    assert len(captured) == 2
    for image, background in rendered:
        assert (image == background).all()


def test_image_that_overflows_its_buffers_is_captured_anew(
    images: ImageGraphs, quick: Scene, captured: list[CudaGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "_MULTIPLE", 4)
    far, near = camera(focal=3.0), camera(focal=10.0)
    settle(images, quick, captured, far)
    layout = images._buffers._kept[48].layout
    assert_same(images.render(near, body(quick), quick.avatar, RULES, WHITE), as_it_is(quick, near, body(quick)))
    grown = images._buffers._kept[48].layout
    assert all(new.samples > old.samples for new, old in zip(grown.rounds, layout.rounds, strict=True))
    numbers = []
    for _ in range(5):  # the other pose may overflow them once more
        ours = images.render(near, body(quick, bent=True), quick.avatar, RULES, WHITE)
        assert_same(ours, as_it_is(quick, near, body(quick, bent=True)))
        numbers.append(len(captured))
    assert 2 <= numbers[-1] <= 3 and numbers[-1] == numbers[-2], "in the end there is a graph, and it stays"


def test_image_in_parts_runs_as_it_is(
    images: ImageGraphs, quick: Scene, captured: list[CudaGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_buffers, "_LEAST_RAYS", 8)
    monkeypatch.setattr(image_buffers, "_WARP", 1)
    settle(images, quick, captured, camera())
    images._buffers.megabytes = 0.013
    images._buffers._kept.clear()
    expected = as_it_is(quick, camera(), body(quick))
    for _ in range(2):
        assert_same(images.render(camera(), body(quick), quick.avatar, RULES, WHITE), expected)
    assert images._buffers._kept[48].layout.parts > 1
    assert len(captured) == 1 and images._sizes[6, 8][1] is None, "memory of the former graph is given back"


@pytest.mark.usefixtures("plain")
def test_graphs_of_sizes_not_asked_for_are_given_up(
    images: ImageGraphs, quick: Scene, captured: list[CudaGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_graphs, "_KEPT", 2)
    cameras = camera(2, 2), camera(3, 2), camera(2, 3)
    settle(images, quick, captured, *cameras[:2])
    images.render(cameras[2], body(quick), quick.avatar, RULES, WHITE)
    assert [*images._sizes] == [(3, 2), (2, 3)]
    images.render(cameras[1], body(quick), quick.avatar, RULES, WHITE)
    images.render(cameras[0], body(quick), quick.avatar, RULES, WHITE)
    assert len(captured) == 2 and [*images._sizes] == [(3, 2), (2, 2)]


@pytest.mark.usefixtures("plain")
def test_avatar_elsewhere_in_memory_and_other_rules_are_captured_anew(
    images: ImageGraphs, quick: Scene, captured: list[CudaGraph]
) -> None:
    settle(images, quick, captured, camera(2, 2))
    params = quick.avatar.field.density_head.params
    params.data = params.data.clone()
    for _ in range(2):
        images.render(camera(2, 2), body(quick), quick.avatar, RULES, WHITE)
    assert len(captured) == 2
    for _ in range(2):
        images.render(camera(2, 2), body(quick), quick.avatar, SampleRules(step=0.2), WHITE)
    assert len(captured) == 3


@pytest.mark.usefixtures("plain")
def test_interruptions_do_no_harm(images: ImageGraphs, quick: Scene, captured: list[CudaGraph]) -> None:
    """nerfstudio's legacy viewer ends renderings by exceptions from a tracing function, at any line that it sees."""
    settle(images, quick, captured, camera(2, 2))
    lines, end = 0, 0

    def interrupt(_frame: Any, event: str, _: object) -> Any:
        nonlocal lines
        lines += event == "line"
        if lines == end:
            raise KeyboardInterrupt
        return interrupt

    def render() -> None:
        arguments = camera(2, 2), body(quick), quick.avatar, RULES, WHITE
        with contextlib.suppress(KeyboardInterrupt):
            sys.settrace(interrupt)
            try:
                images.render(*arguments)
                finished.append(end)
            finally:
                sys.settrace(None)

    finished: list[int] = []
    while not finished:
        lines, end = 0, end + 1
        # In a thread of its own, as in the viewer: PyTorch's modes may not be set back either.
        thread = threading.Thread(target=render)
        thread.start()
        thread.join()
        assert not images._lock.locked(), f"after line {end}"
    assert end > 10, "some lines are seen"
    ours = images.render(camera(2, 2), body(quick), quick.avatar, RULES, WHITE)
    assert (ours["rgb"] == 1).all() and len(captured) == 1


class NoHostReads(TorchDispatchMode):
    """What must not happen in a capture: that the host reads from the device, or sends it something."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "unique_dim"), name
        if name == "index":
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "as many as are set"
        return func(*args, **(kwargs or {}))


def test_work_that_is_captured_reads_nothing_on_the_host(
    scene: Scene, small_avatar: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By kernels throughout, and with the pixels of the packed renderer."""
    monkeypatch.setattr(image_buffers, "ROUNDS", (3, 0))
    field = scene.avatar.field
    kernels = CanonicalField(*canonical_box(small_avatar.vertices), HashGrid(4, 10), 16, "triton").to(DEVICE)
    kernels.load_state_dict(field.state_dict())
    shown = camera(4, 4, focal=5.0)
    inputs = ImageInputs(scene.bones, scene.world_to_root, shown.camera_to_world, shown.intrinsics, WHITE)
    layout = ImageLayout(1, (BufferSizes(256, 256),) * 2)
    avatar = scene.avatar._replace(field=kernels)
    with torch.no_grad(), NoHostReads():
        image = image_graphs.draw_image(inputs, (4, 4), avatar, RULES, layout)
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            image.counts[0, 0, 0].item()
    assert layout.hold(image.counts[0].tolist()) and image.counts.min() > 0
    rays = Rays(shown.rays()[0], shown.rays()[1].view(-1, 3))
    with torch.no_grad():
        pixels = render_packed(rays, scene.pose, scene.avatar, RULES)
    theirs = pixel_outputs(pixels, rays.origins_in_root_space(scene.pose.body), WHITE)
    differ = (image.outputs["rgb"] - theirs["rgb"]).abs().amax(dim=-1) > 0.02
    assert differ.sum() <= 1, "half precision, and samples on the border of a cell, which may be counted to either"
    assert (theirs["accumulation"] > 0.5).sum() > 3
