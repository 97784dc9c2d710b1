"""Loss terms."""

from __future__ import annotations

import math
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from instantavatar_ns.backgrounds import on_same_background
from instantavatar_ns.losses import (
    _step_terms_triton,
    _terms_of_field,
    as_patches,
    hard_surface_loss,
    lpips_vgg,
    mask_loss,
    opacity_loss,
    patch_depth_loss,
    patch_lpips_loss,
    rgb_loss,
)
from instantavatar_ns.model_config import InstantAvatarModelConfig
from instantavatar_ns.utils import perceptual
from instantavatar_ns.utils.errors import InputError
from tests.backbones import vgg_state
from tests.tiny import DEVICE

SIZE = 16


def test_hard_surface_prior_draws_opacity_to_nothing_or_all() -> None:
    assert hard_surface_loss(torch.tensor([0.0, 1.0])).item() == pytest.approx(0.0, abs=1e-6)
    highest = -math.log(2 * math.exp(-0.5)) + 0.313262  # as the release writes it
    assert hard_surface_loss(torch.tensor([0.5])).item() == pytest.approx(highest, abs=1e-5)
    opacity = torch.tensor([0.2, 0.8], requires_grad=True)
    hard_surface_loss(opacity).backward()
    assert opacity.grad is not None and opacity.grad[0] > 0 > opacity.grad[1]


def test_hard_surface_prior_is_a_mean_and_zero_of_nothing() -> None:
    values = torch.rand(7, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hard_surface_loss(values.repeat(3, 1)), hard_surface_loss(values))
    nothing = torch.zeros(0, requires_grad=True)
    loss = hard_surface_loss(nothing)
    loss.backward()
    assert loss == 0


def test_hard_surface_prior_of_a_buffer_is_that_of_what_it_holds() -> None:
    values = torch.rand(7, generator=torch.Generator().manual_seed(0))
    buffer = torch.cat([values, torch.zeros(5)])
    torch.testing.assert_close(hard_surface_loss(buffer, torch.tensor([7])), hard_surface_loss(values))
    assert hard_surface_loss(torch.zeros(5), torch.tensor([0])).item() == pytest.approx(0.0, abs=1e-6)


def test_mask_loss_is_the_mean_square() -> None:
    assert mask_loss(torch.tensor([[0.2], [1.0]]), torch.tensor([[0.0], [0.5]])).item() == pytest.approx(0.145)


def test_rgb_loss_is_the_mean_square() -> None:
    rgb, truth = torch.tensor([[0.2, 0.4, 0.3], [1.0, 1.0, 0.9]]), torch.tensor([[0.2, 0.4, 0.6], [1.0, 1.0, 1.0]])
    assert rgb_loss(rgb, truth).item() == pytest.approx((0.3**2 + 0.1**2) / 6)


def test_opacity_counts_where_space_should_be_empty_in_the_mean_of_all() -> None:
    opacity = torch.tensor([0.4, 0.8], requires_grad=True)
    assert opacity_loss(opacity).item() == pytest.approx(0.6)
    loss = opacity_loss(opacity, torch.tensor([True, False]))
    loss.backward()
    assert loss.item() == pytest.approx(0.2)
    assert opacity.grad is not None and opacity.grad.tolist() == [0.5, 0.0]


# Of patches


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return lpips_vgg(vgg_state(tmp_path_factory.mktemp("vgg") / "vgg.pth"), "cpu")


def two_patches(first: float, second: float, channels: int = 1) -> Tensor:
    return torch.tensor([first, second]).repeat_interleave(SIZE**2)[:, None].repeat(1, channels)


@pytest.mark.parametrize("background", [None, 1.0])
@pytest.mark.parametrize("step", [3, 800])
@pytest.mark.parametrize("num_samples", [0, 900, 4000])
def test_kernel_has_the_terms_and_gradients_of_torch(background: float | None, step: int, num_samples: int) -> None:
    config, drawn = InstantAvatarModelConfig(mask_loss_mult=0.3), torch.Generator().manual_seed(step)
    sizes = {"rgb": (1500, 3), "accumulation": (1500, 1), "sample_weights": (4000,), "space_opacity": (1200,)}
    inputs = {name: torch.rand(size, generator=drawn).to(DEVICE) for name, size in sizes.items()}
    inputs["accumulation"] = 1.1 * inputs["accumulation"] - 0.05  # rounding may lead beyond 0 and 1
    inputs["sample_weights"][num_samples:] = 0
    image = torch.rand(1500, 4, generator=drawn).to(DEVICE)
    others = {
        "num_samples": torch.tensor([num_samples], dtype=torch.int32, device=DEVICE),
        "space_is_free": (torch.rand(1200, generator=drawn) > 0.4).to(DEVICE),
    }
    found = []
    for by_kernel in (True, False):
        outputs = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        torch.manual_seed(7)
        if by_kernel:
            terms = _step_terms_triton(outputs | others, image, config, background, step)
        else:
            colors = on_same_background(outputs["rgb"], outputs["accumulation"], image, background)
            mask = config.mask_loss_mult * mask_loss(outputs["accumulation"], image[:, 3:])
            terms = {"rgb_loss": rgb_loss(*colors), "mask_loss": mask}
            terms |= _terms_of_field(outputs | others, config, step)
        total = sum((place + 1) * term for place, term in enumerate(terms.values()))
        gradients = torch.autograd.grad(total, [*outputs.values()])
        found.append((terms, dict(zip(outputs, gradients, strict=True))))
    (ours, our_gradients), (theirs, their_gradients) = found
    assert [*ours] == [*theirs] and ("empty_loss" in ours) == (step < config.empty_steps)
    rounding = 1e-7 if num_samples else 1e-4  # that of torch's sum of thousands of zeros
    for name, term in theirs.items():
        torch.testing.assert_close(ours[name], term, atol=rounding, rtol=1e-5, msg=name)
    for name, gradient in their_gradients.items():
        rows = slice(num_samples if name == "sample_weights" else None)  # no sample asks for the rest
        torch.testing.assert_close(our_gradients[name][rows], gradient[rows], atol=1e-8, rtol=1e-4, msg=name)


def test_rays_of_the_data_manager_make_images() -> None:
    """A patch's pixels come row by row; a ramp along the rows shows it."""
    rows = torch.arange(2 * SIZE**2).float() % SIZE**2 // SIZE
    images = as_patches(rows[:, None], SIZE)
    assert images.shape == (2, SIZE, SIZE, 1)
    assert torch.equal(images[1, :, 3, 0], torch.arange(SIZE).float())


def test_single_pixels_and_small_patches_are_refused(network: nn.Module) -> None:
    colors = two_patches(0.1, 0.2, 3)
    with pytest.raises(InputError, match=r"sampling: .*found single pixels.*lpips-loss-mult"):
        patch_lpips_loss(colors, colors, None, network)
    with pytest.raises(InputError, match="at least 16 pixels"):
        patch_lpips_loss(colors, colors, 8, network)
    with pytest.raises(InputError, match="found single pixels"):
        patch_depth_loss(colors[:, :1], colors[:, :1], None)


def test_lpips_is_the_sum_over_patches_and_draws_to_the_truth(network: nn.Module) -> None:
    truth = torch.rand(2 * SIZE**2, 3, generator=torch.Generator().manual_seed(0))
    assert patch_lpips_loss(truth, truth, SIZE, network).item() == pytest.approx(0.0, abs=1e-6)
    rendered = (0.5 + 0 * truth).requires_grad_()
    loss = patch_lpips_loss(rendered, truth, SIZE, network)
    parts = [patch_lpips_loss(rendered[i : i + SIZE**2], truth[i : i + SIZE**2], SIZE, network) for i in (0, SIZE**2)]
    torch.testing.assert_close(loss, parts[0] + parts[1])
    loss.backward()
    assert rendered.grad is not None
    nearer = rendered.detach() - 0.05 * rendered.grad / rendered.grad.abs().max()
    assert 0 < patch_lpips_loss(nearer, truth, SIZE, network) < loss
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_depth_is_drawn_to_its_patch_and_not_to_others() -> None:
    depth, opaque = two_patches(2.0, 5.0), two_patches(1.0, 1.0)
    assert patch_depth_loss(depth, opaque, SIZE).item() == pytest.approx(0.0, abs=1e-6)
    speck = depth.clone()
    speck[7] = 1.0
    speck.requires_grad_()
    loss = patch_depth_loss(speck, opaque, SIZE)
    # One pixel a metre off, and all others of the patch off by a 256th, as the mean has moved.
    assert loss.item() == pytest.approx(2 * (1 - 1 / SIZE**2) / (2 * SIZE**2), rel=1e-3)
    loss.backward()
    assert speck.grad is not None and speck.grad[7] < 0, "descent moves it away from the camera"
    assert speck.grad[7].abs() > 50 * speck.grad[:7].abs().max()


def test_depth_of_what_is_mostly_empty_does_not_count() -> None:
    depth, accumulation = two_patches(2.0, 5.0), two_patches(1.0, 1.0)
    depth[3], accumulation[3] = 9.0, 0.4
    accumulation.requires_grad_()
    depth.requires_grad_()
    loss = patch_depth_loss(depth, accumulation, SIZE)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    loss.backward()
    assert accumulation.grad is None, "opacity must not fall for depth's sake"
    empty = patch_depth_loss(depth, torch.zeros_like(depth), SIZE)
    assert empty.item() == 0.0


def test_missing_weights_end_in_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(perceptual, "download", refuse)
    perceptual.lpips.cache_clear()
    with pytest.raises(InputError, match=r"VGG16's weights: .*Name or service.*--pipeline\.model\.vgg-backbone"):
        lpips_vgg(None, "cpu")
    with pytest.raises(InputError, match=r"nowhere\.pth.*no such file.*vgg16-397923af"):
        lpips_vgg(tmp_path / "nowhere.pth", "cpu")
    alexnet = tmp_path / "alexnet.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11), "features.0.bias": torch.zeros(64)}, alexnet)
    with pytest.raises(InputError, match=r"VGG16's features, found no features\.2\.weight"):
        lpips_vgg(alexnet, "cpu")


def test_backbone_is_the_files(network: nn.Module, tmp_path: Path) -> None:
    state = torch.load(vgg_state(tmp_path / "vgg.pth"))
    convolutions = [module for module in network.net.modules() if isinstance(module, nn.Conv2d)]  # pyright: ignore
    assert len(convolutions) == 13
    for layer, convolution in zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), convolutions, strict=True):
        assert torch.equal(convolution.weight, state[f"features.{layer}.weight"])
