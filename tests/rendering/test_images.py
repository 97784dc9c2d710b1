"""Whole images in rounds: the pixels of the packed renderer, whatever the rounds, the parts and the buffers are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from instantavatar_ns.rendering import capacity, image_buffers, rounds_triton
from instantavatar_ns.rendering.capacity import BufferSizes
from instantavatar_ns.rendering.composite import Pixels
from instantavatar_ns.rendering.image_buffers import ImageBuffers, ImageLayout, block_size, split
from instantavatar_ns.rendering.image_rounds import render_rounds
from instantavatar_ns.rendering.inputs import Rays, SampleRules
from instantavatar_ns.rendering.packed import render_packed
from tests.avatars import Avatar as Body
from tests.rendering.scenes import DEVICE, Scene, posed

RULES = SampleRules(step=0.1, alpha_threshold=0.01, early_stop_eps=0.1)
ROOMY = BufferSizes(1024, 1024)


@pytest.fixture(scope="module")
def quick(scene: Scene, small_avatar: Body) -> Scene:
    """The scene with the search in torch: Triton's interpreter takes seconds for it."""
    avatar = scene.avatar._replace(deformer=small_avatar.deformer.to(DEVICE))
    return scene._replace(avatar=avatar, pose=posed(avatar, scene.bones, scene.world_to_root))


@pytest.fixture(scope="module")
def expected(quick: Scene) -> Pixels:
    with torch.no_grad():
        return render_packed(quick.rays, quick.pose, quick.avatar, RULES)


def render(scene: Scene, rounds: tuple[int, ...], rules: SampleRules = RULES):
    return render_rounds(scene.rays, scene.pose, scene.avatar, rules, rounds, (ROOMY,) * len(rounds))


def assert_same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], tolerance: float = 1e-4) -> None:
    for our, their in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(our, their, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("rounds", [(0,), (1, 0), (2, 3, 0), (1, 1, 1, 0)])
def test_pixels_are_those_of_the_packed_renderer(quick: Scene, expected: Pixels, rounds: tuple[int, ...]) -> None:
    image = render(quick, rounds)
    assert (expected.accumulation > 0.3).sum() > 4 and (expected.accumulation == 0).sum() > 4
    assert_same(image, expected)
    assert_same(image, render(quick, (0,)), tolerance=1e-6)


def test_search_in_triton_gives_the_same(scene: Scene, expected: Pixels) -> None:
    """But for a root here and there that one of the searches misses."""
    image = render(scene, (4, 0))
    assert_same(image, expected, tolerance=1e-2)
    for our, their in zip(image[:3], expected[:3], strict=True):
        assert ((our - their).abs() > 1e-4).float().mean() < 0.03


def test_rounds_spare_what_is_hidden(quick: Scene) -> None:
    samples = [int(render(quick, rounds).counts[:, 0].sum()) for rounds in ((0,), (4, 0), (2, 2, 2, 0))]
    assert samples[0] > samples[1] > samples[2]
    transparent = replace(RULES, early_stop_eps=0.0)
    whole, rounds = render(quick, (0,), transparent), render(quick, (2, 2, 0), transparent)
    assert whole.counts.sum(dim=0)[0] == rounds.counts.sum(dim=0)[0] == samples[0], "nothing is hidden, nothing spared"
    assert_same(rounds, whole, tolerance=1e-6)


def test_round_takes_so_many_samples_and_the_last_one_the_rest(quick: Scene) -> None:
    transparent = replace(RULES, early_stop_eps=0.0)
    counts = render(quick, (3, 2, 0), transparent).counts[:, 0]
    with torch.no_grad():
        weights = render_packed(quick.rays, quick.pose, quick.avatar, transparent).weights
    per_ray = render(quick, (1, 0), transparent).counts[:, 0]
    rays = int(per_ray[0])
    assert 0 < rays < 36 and counts[0] <= 3 * rays and counts[1] <= 2 * rays
    assert counts.sum() == len(weights) > 4 * rays


@pytest.mark.parametrize("number", [33, 34, 35])
def test_images_of_any_size_run_the_same_kernels(
    quick: Scene, expected: Pixels, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    aligned: list[bool] = []

    def launch(*arguments: Any, **options: Any) -> None:
        aligned.extend(value.data_ptr() % 16 == 0 for value in arguments if isinstance(value, Tensor))
        launch_kernel(*arguments, **options)

    launch_kernel = rounds_triton.launch
    monkeypatch.setattr(rounds_triton, "launch", launch)
    rays = Rays(quick.rays.origins[:number].clone(), quick.rays.directions[:number].clone())
    image = render(quick._replace(rays=rays), (2, 0))
    assert_same(image, tuple(value[:number] for value in expected[:3]))
    assert len(aligned) == 2 * (12 + 11) and all(aligned)


def test_rays_that_start_together_need_one_origin(quick: Scene, expected: Pixels) -> None:
    rays = Rays(quick.rays.origins[:1], quick.rays.directions)
    image = render_rounds(rays, quick.pose, quick.avatar, RULES, (4, 0), (ROOMY, ROOMY))
    assert_same(image, render(quick, (4, 0)), tolerance=1e-6)
    with torch.no_grad():
        assert_same(render_packed(rays, quick.pose, quick.avatar, RULES), expected)


def test_camera_within_the_person_and_rays_that_miss(quick: Scene) -> None:
    """Steps are counted from origins within the box; a ray along the planes of the cells divides by nothing."""
    middle = torch.linalg.inv(quick.world_to_root)[:3, 3]
    origins = torch.stack([middle, middle, middle + 5.0, middle])
    directions = torch.eye(3, device=DEVICE)[[0, 1, 2, 2]]
    rays = Rays(origins, directions)
    image = render_rounds(rays, quick.pose, quick.avatar, RULES, (2, 0), (ROOMY, ROOMY))
    with torch.no_grad():
        assert_same(image, render_packed(rays, quick.pose, quick.avatar, RULES))
    assert image.accumulation[0] > 0 and not image.accumulation[2]


@pytest.fixture
def buffers(monkeypatch: pytest.MonkeyPatch) -> ImageBuffers:
    """With sizes that fit the test's."""
    monkeypatch.setattr(capacity, "_MULTIPLE", 4)
    monkeypatch.setattr(image_buffers, "_LEAST_RAYS", 8)
    monkeypatch.setattr(image_buffers, "_WARP", 1)
    monkeypatch.setattr(image_buffers, "_BLOCKS_OF_A_PART", 2)
    monkeypatch.setattr(image_buffers, "ROUNDS", (3, 3, 0))
    return ImageBuffers(1e3)


def guess(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Have images start with buffers of so many samples and roots in each round."""
    layout = ImageLayout(1, (BufferSizes(size, size),) * 3)
    first = image_buffers._Kept(layout, ((0, 0),) * 3, image_buffers._PATIENCE - 1)
    monkeypatch.setattr(ImageBuffers, "_guess", lambda self, num_rays: first)


def count_renderings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rays of each rendering from now on."""
    rendered = []

    def counted(rays: Rays, *arguments):
        rendered.append(len(rays.directions))
        return render_rounds(rays, *arguments)

    monkeypatch.setattr("instantavatar_ns.rendering.image_rounds.render_rounds", counted)
    return rendered


def test_buffers_that_overflow_are_grown_and_kept(
    quick: Scene, expected: Pixels, buffers: ImageBuffers, monkeypatch: pytest.MonkeyPatch
) -> None:
    guess(monkeypatch, 4)
    rendered = count_renderings(monkeypatch)
    pixels, _ = buffers.render(quick.rays, quick.pose, quick.avatar, RULES)
    assert 1 < len(rendered) <= 3, "once more for the samples, once for the roots"
    rendered.clear()
    again, num_samples = buffers.render(quick.rays, quick.pose, quick.avatar, RULES)
    assert_same(again, pixels, tolerance=1e-6)
    assert num_samples == render(quick, (3, 3, 0)).counts[:, 0].sum()
    assert rendered == [36]
    assert_same(pixels, expected)
    assert pixels.weights.shape == (0,)


def test_buffers_that_are_far_too_large_shrink(
    quick: Scene, expected: Pixels, buffers: ImageBuffers, monkeypatch: pytest.MonkeyPatch
) -> None:
    guess(monkeypatch, 1 << 14)
    rendered = count_renderings(monkeypatch)
    for _ in range(2):
        assert_same(buffers.render(quick.rays, quick.pose, quick.avatar, RULES)[0], expected)
    assert rendered == [36, 36]
    assert all(size.samples < 1 << 10 for size in buffers._kept[36].layout.rounds)


@pytest.mark.parametrize("shared_origin", [False, True])
def test_image_that_needs_more_than_the_budget_is_rendered_in_parts(
    quick: Scene, expected: Pixels, buffers: ImageBuffers, monkeypatch: pytest.MonkeyPatch, shared_origin: bool
) -> None:
    buffers.render(quick.rays, quick.pose, quick.avatar, RULES)
    small = ImageBuffers(0.6 * buffers._kept[36].layout.megabytes())
    rays = Rays(quick.rays.origins[:1], quick.rays.directions) if shared_origin else quick.rays
    assert_same(small.render(rays, quick.pose, quick.avatar, RULES)[0], expected)
    layout = small._kept[36].layout
    assert layout.parts > 1 and layout.megabytes() <= small.megabytes
    rendered = count_renderings(monkeypatch)
    assert_same(small.render(rays, quick.pose, quick.avatar, RULES)[0], expected)
    assert rendered == [len(part.directions) for part in split(rays, layout.parts, block_size(36, layout.parts))]
    assert sum(rendered) == 36


def test_nothing_to_see_and_no_rays(quick: Scene, buffers: ImageBuffers) -> None:
    away = Rays(quick.rays.origins, -quick.rays.directions)
    pixels, _ = buffers.render(away, quick.pose, quick.avatar, RULES)
    assert not pixels.accumulation.any() and not pixels.rgb.any() and not pixels.depth.any()
    nothing, _ = buffers.render(Rays(*(part[:0] for part in quick.rays)), quick.pose, quick.avatar, RULES)
    assert nothing.rgb.shape == (0, 3) and nothing.depth.shape == (0,)
