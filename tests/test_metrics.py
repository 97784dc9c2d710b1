"""Image metrics, and LPIPS where its weights cannot be had."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor

from instantavatar_ns.metrics import image_metrics, lpips_alex, quantise
from instantavatar_ns.utils import perceptual
from instantavatar_ns.utils.errors import InputError

SIZE = 64


@pytest.fixture(autouse=True)
def forget_lpips():
    """LPIPS is built once per process; each test here builds its own."""
    for cached in (lpips_alex, perceptual.lpips):
        cached.cache_clear()
    yield
    for cached in (lpips_alex, perceptual.lpips):
        cached.cache_clear()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(perceptual, "download", refuse)


def some_image() -> Tensor:
    """Soft blobs, so that structure means something."""
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic")[0].clamp(0.1, 0.9).moveaxis(0, -1)


def alexnet_state(path: Path) -> Path:
    """A file of AlexNet's convolutions with random weights."""
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    state = {}
    for layer, shape in shapes.items():
        state[f"features.{layer}.weight"] = 0.05 * torch.randn(shape, generator=generator)
        state[f"features.{layer}.bias"] = 0.05 * torch.randn(shape[0], generator=generator)
    torch.save(state, path)
    return path


def test_images_are_rounded_to_8_bits() -> None:
    values = torch.tensor([-0.5, 0.0, 0.2 / 255, 0.6 / 255, 100.4 / 255, 1.0, 3.0])
    torch.testing.assert_close(quantise(values) * 255, torch.tensor([0.0, 0, 0, 1, 100, 255, 255]))


def test_psnr_of_a_known_difference(no_network: None) -> None:
    truth = torch.full((SIZE, SIZE, 3), 100 / 255)
    values = image_metrics(truth + 10.3 / 255, truth, None)
    expected = -20 * torch.log10(torch.tensor(10 / 255)).item()  # 28.13 dB; 27.87 without rounding
    assert values["psnr"] == pytest.approx(expected, abs=1e-3)


def test_psnr_does_not_depend_on_the_images_own_range(no_network: None) -> None:
    """torchmetrics would take the range from the image if it were not told."""
    dim = 0.2 * some_image()
    value = image_metrics(dim + 5 / 255, dim, None)["psnr"]
    assert value == pytest.approx(-20 * torch.log10(torch.tensor(5 / 255)).item(), abs=0.1)


def test_ssim_is_one_for_the_same_and_drops_with_noise(no_network: None) -> None:
    image = some_image()
    assert image_metrics(image, image, None)["ssim"] == pytest.approx(1.0, abs=1e-5)
    noise = 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    assert 0.1 < image_metrics(image + noise, image, None)["ssim"] < 0.9


def test_without_network_lpips_is_left_out_with_a_word(no_network: None, capsys: pytest.CaptureFixture[str]) -> None:
    image = some_image()
    assert set(image_metrics(image, image, None)) == {"psnr", "ssim"}
    assert "--pipeline.model.lpips-backbone" in capsys.readouterr().out.replace("\n", "")
    image_metrics(image, image, None)
    assert capsys.readouterr().out == "", "said once"


def test_missing_backbone_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.pth.*no such file"):
        lpips_alex(tmp_path / "nowhere.pth", "cpu")


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.pth"
    text.write_text("not a checkpoint")
    with pytest.raises(InputError, match="expected AlexNet's weights"):
        lpips_alex(text, "cpu")
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, other)
    with pytest.raises(InputError, match=r"no features\.0\.bias"):
        lpips_alex(other, "cpu")


def test_given_backbone_is_used(tmp_path: Path, no_network: None) -> None:
    """All five convolutions are the file's, in order, and no weight is left to chance."""
    path = alexnet_state(tmp_path / "alexnet.pth")
    lpips = lpips_alex(path, "cpu")
    assert lpips is not None
    convolutions = [module for module in lpips.net.modules() if isinstance(module, torch.nn.Conv2d)]
    state = torch.load(path)
    for layer, convolution in zip((0, 3, 6, 8, 10), convolutions, strict=True):
        assert torch.equal(convolution.weight, state[f"features.{layer}.weight"])
        assert convolution.bias is not None and torch.equal(convolution.bias, state[f"features.{layer}.bias"])
    image = some_image()
    values = image_metrics(image, image, path)
    assert values["lpips"] == values["lpips_published"] == pytest.approx(0.0, abs=1e-6)
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_lpips_of_the_published_network(repo_root: Path) -> None:
    """Noise of 0.1 is clearly visible; the published tables feed values from 0 to 1, which gives lower numbers."""
    backbone = repo_root.parent / "shared" / "lpips" / "alex_features.pth"
    if not backbone.is_file():
        pytest.skip("no AlexNet weights at ../shared/lpips/alex_features.pth")
    image = some_image()
    noisy = image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    values = image_metrics(noisy, image, backbone)
    assert 0.2 < values["lpips"] < 0.3
    assert 0.18 < values["lpips_published"] < 0.95 * values["lpips"]
