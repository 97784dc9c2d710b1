"""Rendering in buffers of a fixed size: the same images and gradients as with tensors of the length that is needed.

Marching, search and compositing run on the GPU if there is one, else in Triton's interpreter; the field is torch's.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from instantavatar_ns.occupancy.posed_grid import pose_cells
from instantavatar_ns.rendering.buffered import render_buffered
from instantavatar_ns.rendering.capacity import BufferSizes
from instantavatar_ns.rendering.inputs import Rays, SampleRules
from instantavatar_ns.rendering.packed import render_packed
from instantavatar_ns.rendering.step_buffers import StepBuffers
from tests.rendering.scenes import DEVICE, Scene, posed

RULES = SampleRules(step=0.05)
ROOMY = BufferSizes(2048, 2048)


@torch.no_grad()
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.05, 0.2)])
def test_pixels_are_those_of_the_packed_renderer(scene: Scene, thresholds: tuple[float, float]) -> None:
    rules = replace(RULES, alpha_threshold=thresholds[0], early_stop_eps=thresholds[1])
    expected = render_packed(scene.rays, scene.pose, scene.avatar, rules)
    pixels, num_samples, num_roots, _ = render_buffered(scene.rays, scene.pose, scene.avatar, rules, ROOMY)
    assert int(num_samples) == len(expected.weights) and 0 < int(num_roots) < 2048
    assert (expected.accumulation > 0.3).sum() > 4 and (expected.accumulation == 0).sum() > 4
    # A compiled kernel joins products and sums, which the search's last step shows in metres of depth.
    tolerance = 1e-4 if DEVICE == "cpu" else 3e-4
    for ours, theirs in zip(pixels[:3], expected[:3], strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


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


def test_step_that_does_not_fit_is_told_of_and_the_next_one_fits(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("instantavatar_ns.rendering.step_buffers._SAMPLES_PER_RAY", 1)
    buffers = StepBuffers()
    _, num_samples, _ = buffers.render(scene.rays, scene.pose, scene.avatar, RULES)
    assert int(num_samples) == 36, "what was rendered, not what was wanted"
    away = Rays(scene.rays.origins, -scene.rays.directions)
    _, num_samples, _ = buffers.render(away, scene.pose, scene.avatar, RULES)
    assert int(num_samples) == 0, "the fullest step counts, not the last"
    assert checked(buffers)
    assert "36 and 36" in capsys.readouterr().out
    # The samples that were left out have not been searched: a second step may tell of more roots than the first.
    for _ in range(2):
        _, num_samples, _ = buffers.render(scene.rays, scene.pose, scene.avatar, RULES)
        assert int(num_samples) > 36
        if not checked(buffers):
            break
    capsys.readouterr()
    buffers.render(scene.rays, scene.pose, scene.avatar, RULES)
    assert not checked(buffers)
    assert not capsys.readouterr().out


def checked(buffers: StepBuffers) -> bool:
    """Whether a check enlarged buffers; on a GPU it is the second one that knows of the last step."""
    enlarged = buffers.check()
    if DEVICE == "cpu":
        return enlarged
    assert not enlarged
    torch.cuda.synchronize()
    return buffers.check()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_check_does_not_block_the_host(scene: Scene) -> None:
    buffers = StepBuffers()
    buffers.render(scene.rays, scene.pose, scene.avatar, RULES)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            buffers.check()
    finally:
        torch.cuda.set_sync_debug_mode("default")
