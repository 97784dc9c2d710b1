"""Frames cropped to the person: what is drawn from them, where they lie, and what they take."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from instantavatar_ns.backgrounds import TRAINING_BACKGROUNDS, on_same_background
from instantavatar_ns.data import cropped_frames
from instantavatar_ns.data.cropped_frames import Crop, CroppedFrames, read_frames
from instantavatar_ns.data.datamanager import FrameStore
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.utils.errors import InputError
from tests.tiny import DEVICE, frame_store

CPU = torch.device("cpu")
STEPS, RAYS = 12, 512
SAMPLINGS = ({"patch_size": 8, "mask_dilation": 0.3}, {"sampling": "pixels"})


def whole(image: np.ndarray) -> Crop:
    """The whole image instead of a crop."""
    return Crop(torch.from_numpy(np.pad(image, ((1, 1), (1, 1), (0, 0)))), -1, -1)


def assert_same_draws(ours: FrameStore, theirs: FrameStore, colors_outside: bool) -> int:
    """Compare rays and batches bit by bit, and count the pixels outside our crops."""
    outside = 0
    for step in range(STEPS):
        frame = step % len(ours)
        (rays, batch), (other_rays, other) = (one.draw_rays(frame, RAYS, step) for one in (ours, theirs))
        assert torch.equal(rays.origins, other_rays.origins) and torch.equal(rays.directions, other_rays.directions)
        assert torch.equal(batch["indices"], other["indices"])
        assert torch.equal(batch["image"][:, 3], other["image"][:, 3])
        if colors_outside:
            assert torch.equal(batch["image"], other["image"])
        outside += int((batch["image"] != other["image"]).any(dim=1).sum())
        rgb, accumulation = torch.rand(2, len(rays), 3, device=rays.origins.device)
        for background in TRAINING_BACKGROUNDS.values():
            compared = []
            for image in (batch["image"], other["image"]):
                torch.manual_seed(step)
                compared.append(on_same_background(rgb, accumulation[:, :1], image, background))
            assert all(map(torch.equal, *compared)), "what losses see is the same on every background"
    return outside


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["patches", "pixels"])
def test_draws_are_those_of_whole_frames(
    outputs: DataparserOutputs, sampling: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    cropped = frame_store(outputs, **sampling)
    monkeypatch.setattr(Crop, "of", whole)
    uncropped = frame_store(outputs, **sampling)
    assert cropped.images.pixels.nbytes < 0.6 * uncropped.images.pixels.nbytes
    assert assert_same_draws(cropped, uncropped, colors_outside=False) > 0, "pixels outside the crops are drawn, too"


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["patches", "pixels"])
def test_draws_are_the_same_from_host_memory(
    outputs: DataparserOutputs, sampling: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    near = frame_store(outputs, DEVICE, **sampling)
    monkeypatch.setattr(cropped_frames, "_is_short", lambda *_: True)
    far = frame_store(outputs, DEVICE, **sampling)
    assert far.images.in_host_memory and not near.images.in_host_memory
    assert far.images.device == near.images.device == far.pixels[0].pixels.device
    assert_same_draws(far, near, colors_outside=True)
    assert "lie in host memory, as they would take too much of" in " ".join(capsys.readouterr().out.split())


def test_every_pixel_is_that_of_its_image_or_transparent() -> None:
    images = np.random.default_rng(0).integers(1, 256, (6, 9, 7, 4), dtype=np.uint8)
    images[1, :, :, 3] = 0  # nobody
    images[2, 1:, :, 3] = 0  # persons at the edges and in a corner of the image
    images[3, :, :-1, 3] = 0
    images[4, :-1, :, 3] = images[4, :, 1:, 3] = 0
    images[5, [0, 1, -1], :, 3] = images[5, :, [0, -1], 3] = 0
    frames = CroppedFrames([*map(Crop.of, images)], (9, 7), CPU)
    rows, columns = (place.flatten() for place in torch.meshgrid(torch.arange(9), torch.arange(7), indexing="ij"))
    for number, image in enumerate(torch.from_numpy(images)):
        read = frames.at(torch.tensor([number]), rows, columns).view(9, 7, 4)
        assert torch.equal(read[..., 3], image[..., 3])
        assert torch.equal(read * (read[..., 3:] > 0), image * (image[..., 3:] > 0))
        assert torch.equal(frames.mask(number), image[..., 3])
    assert torch.equal(frames.masks(), torch.from_numpy(images[..., 3]))
    sizes = [(9, 7), (0, 0), (1, 7), (9, 1), (1, 1), (6, 5)]
    assert frames.pixels.nbytes == sum(4 * (height + 2) * (width + 2) for height, width in sizes)


def test_console_says_where_frames_lie_and_how_much_they_take(
    outputs: DataparserOutputs, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = frame_store(outputs)
    images, text = frames.images, " ".join(capsys.readouterr().out.split())
    assert text.startswith(f"{len(frames)} frames of {images.width} x {images.height} lie in host memory: ")
    sizes = [float(number) for number in re.findall(r"([\d.]+) MB", text)]
    whole_size = 4 * len(frames) * images.width * images.height
    listed = len(frames.pixels.person.pixels) * 4
    assert sizes == [round(size / 1e6, 1) for size in (images.pixels.nbytes, whole_size, listed)]


def test_frames_that_fit_nowhere_are_refused_with_a_way_out(
    outputs: DataparserOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, read = AvatarDataset(outputs), []
    original = dataset.get_numpy_image
    monkeypatch.setattr(dataset, "get_numpy_image", lambda index: read.append(index) or original(index))
    needed = 2 * read_frames(dataset, CPU).pixels.nbytes
    monkeypatch.setattr(cropped_frames, "free_bytes", lambda device: needed / 0.8 + 1)
    assert len(read_frames(dataset, CPU)) == len(dataset), "just enough"
    monkeypatch.setattr(cropped_frames, "free_bytes", lambda device: needed / 0.8 - 1)
    words = rf"{len(dataset)} of \d+ x \d+ pixels: .* about [\d.]+ MB.*--downscale.*--train-frames"
    with pytest.raises(InputError, match=words) as caught:
        read_frames(dataset, CPU)
    assert caught.value.path == dataset.image_filenames[0].parent
