"""Rendering in buffers of a fixed size: the same images and gradients as with tensors of the length that is needed.

Marching, search and compositing run on the GPU if there is one, else in Triton's interpreter; the field is torch's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from instantavatar_ns.body.pose_bank import PosedBody
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.deformer.search import SearchSettings
from instantavatar_ns.deformer.skinning_grid import canonical_box
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.field.hash_encoding import HashGrid
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.occupancy.posed_grid import pose_cells
from instantavatar_ns.rendering.buffered import render_buffered
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules
from instantavatar_ns.rendering.packed import render_packed
from instantavatar_ns.rendering.render_buffers import BufferSizes, RenderBuffers
from tests.avatars import Avatar as Body
from tests.avatars import body_density, random_bones

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RULES = SampleRules(step=0.05)
ROOMY = BufferSizes(2048, 2048)


class Scene(NamedTuple):
    """What is rendered."""

    rays: Rays
    bones: Tensor
    world_to_root: Tensor
    avatar: Avatar
    pose: RenderPose


@pytest.fixture(scope="module")
def scene(small_avatar: Body) -> Scene:
    """Rays at a person with a random field in the body's occupied cells."""
    torch.manual_seed(0)
    body, search = small_avatar.body, SearchSettings(implementation="triton")
    resolution = small_avatar.deformer.box.resolution
    deformer = FastSnarfDeformer(small_avatar.vertices, body.skinning_weights, resolution, search)
    occupancy = CanonicalOccupancy(deformer.box)
    occupancy.refresh(body_density(small_avatar.vertices, small_avatar.body.faces))
    occupancy, deformer = occupancy.to(DEVICE), deformer.to(DEVICE)
    field = CanonicalField(*canonical_box(small_avatar.vertices), HashGrid(4, 10), 16, "torch").to(DEVICE)
    with torch.no_grad():
        field.encoding.params.normal_()
        field.density_head.params.mul_(12)
    bones = random_bones(small_avatar.body, 1)[0].to(DEVICE)
    world_to_root = torch.eye(4, device=DEVICE)
    world_to_root[:3, 3] = torch.tensor([0.1, -0.05, 0.2])
    x, y = torch.meshgrid(torch.linspace(-0.5, 0.5, 6), torch.linspace(-0.9, 0.6, 6), indexing="ij")
    target = torch.stack([x, y, torch.zeros_like(x)], dim=-1).view(-1, 3)
    origins = torch.tensor([0.2, 0.1, 2.0]).expand_as(target)
    rays = Rays(origins.to(DEVICE), torch.nn.functional.normalize(target - origins, dim=-1).to(DEVICE))
    avatar = Avatar(deformer, occupancy, field)
    return Scene(rays, bones, world_to_root, avatar, posed(avatar, bones, world_to_root))


def posed(avatar: Avatar, bones: Tensor, world_to_root: Tensor) -> RenderPose:
    cells = pose_cells(avatar.occupancy, avatar.deformer, bones.detach())
    return RenderPose(PosedBody(world_to_root, bones), avatar.deformer.pose(bones), cells)


@torch.no_grad()
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.05, 0.2)])
def test_pixels_are_those_of_the_packed_renderer(scene: Scene, thresholds: tuple[float, float]) -> None:
    rules = replace(RULES, least_alpha=thresholds[0], least_transmittance=thresholds[1])
    expected = render_packed(scene.rays, scene.pose, scene.avatar, rules)
    pixels, num_samples, num_roots = render_buffered(scene.rays, scene.pose, scene.avatar, rules, ROOMY)
    assert int(num_samples) == len(expected.weights) and 0 < int(num_roots) < 2048
    assert (expected.accumulation > 0.3).sum() > 4 and (expected.accumulation == 0).sum() > 4
    for ours, theirs in zip(pixels[:3], expected[:3], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_cells_of_either_implementation_show_the_same(scene: Scene) -> None:
    """The grids lie differently, which matters only where neither has to hold the body."""
    cells = pose_cells(scene.avatar.occupancy, scene.avatar.deformer, scene.bones, "triton")
    pixels = [
        render_buffered(scene.rays, replace(scene.pose, cells=each), scene.avatar, RULES, ROOMY).pixels
        for each in (scene.pose.cells, cells)
    ]
    assert (pixels[0].accumulation > 0.3).sum() > 4
    torch.testing.assert_close(pixels[1].rgb, pixels[0].rgb, atol=1e-3, rtol=0)
    torch.testing.assert_close(pixels[1].depth, pixels[0].depth, atol=1e-3, rtol=0)


def test_gradients_to_field_and_pose_are_those_of_the_packed_renderer(scene: Scene) -> None:
    picks = [torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(DEVICE) for shape in ((36, 3), (36,))]
    gradients = []
    for render in (render_packed, lambda *inputs: render_buffered(*inputs, ROOMY).pixels):
        bones, world_to_root = scene.bones.clone().requires_grad_(), scene.world_to_root.clone().requires_grad_()
        pixels = render(scene.rays, posed(scene.avatar, bones, world_to_root), scene.avatar, RULES)
        loss = (pixels.rgb * picks[0]).sum() + (pixels.accumulation * picks[1]).sum()
        gradients.append(torch.autograd.grad(loss, [bones, world_to_root, *scene.avatar.field.parameters()]))
    for theirs, ours in zip(*gradients, strict=True):
        assert theirs.norm() > 0 and (ours - theirs).norm() < 2e-3 * theirs.norm()


def test_images_are_whole_however_small_the_buffers_were(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instantavatar_ns.rendering.render_buffers._SAMPLES_PER_RAY", 1)
    with torch.no_grad():
        pixels, num_samples = RenderBuffers().render(*scene[:1], scene.pose, scene.avatar, RULES)
        expected = render_packed(scene.rays, scene.pose, scene.avatar, RULES)
    assert int(num_samples) == len(expected.weights) > 36
    torch.testing.assert_close(pixels.rgb, expected.rgb, atol=1e-4, rtol=1e-4)


def test_step_that_does_not_fit_is_told_of_and_the_next_one_fits(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("instantavatar_ns.rendering.render_buffers._SAMPLES_PER_RAY", 1)
    buffers = RenderBuffers()
    _, num_samples = buffers.render(scene.rays, scene.pose, scene.avatar, RULES)
    assert int(num_samples) == 36, "what was rendered, not what was wanted"
    away = Rays(scene.rays.origins, -scene.rays.directions)
    _, num_samples = buffers.render(away, scene.pose, scene.avatar, RULES)
    assert int(num_samples) == 0, "the fullest step counts, not the last"
    assert checked(buffers)
    assert "36 and 36" in capsys.readouterr().out
    _, num_samples = buffers.render(scene.rays, scene.pose, scene.avatar, RULES)
    assert int(num_samples) > 36
    assert not checked(buffers)
    assert not capsys.readouterr().out


def checked(buffers: RenderBuffers) -> bool:
    """Whether a check enlarged buffers; on a GPU it is the second one that knows of the last step."""
    enlarged = buffers.check()
    if DEVICE == "cpu":
        return enlarged
    assert not enlarged
    torch.cuda.synchronize()
    return buffers.check()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_check_does_not_wait_for_the_gpu(scene: Scene) -> None:
    buffers = RenderBuffers()
    buffers.render(scene.rays, scene.pose, scene.avatar, RULES)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            buffers.check()
    finally:
        torch.cuda.set_sync_debug_mode("default")
