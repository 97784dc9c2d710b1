"""Batches of rays: one frame a step, drawn on the device, the same for the same seed, step and rank."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from instantavatar_ns.backgrounds import blend
from instantavatar_ns.data.datamanager import AvatarDataManager, AvatarDataManagerConfig, FrameStore
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.data.pixel_sampling import pixel_classes
from instantavatar_ns.utils.errors import InputError
from tests.tiny import DEVICE

SIZE, TRAIN, HELDOUT = 96, 8, 3
RAYS = 2048


@pytest.fixture(scope="module")
def config(demo_subject: Path) -> AvatarDataManagerConfig:
    return AvatarDataManagerConfig(
        dataparser=InstantAvatarDataParserConfig(data=demo_subject),
        train_num_rays_per_batch=RAYS,
        eval_num_rays_per_batch=RAYS,
    )


@pytest.fixture(scope="module")
def manager(config: AvatarDataManagerConfig) -> AvatarDataManager:
    return config.setup(device="cpu", test_mode="test")


def store(manager: AvatarDataManager, rank: int = 0, **changes) -> FrameStore:
    """The training frames, drawn from with a changed configuration."""
    return FrameStore(manager.train_dataset, "cpu", replace(manager.config, **changes), rank)


def mask_at(manager: AvatarDataManager, indices: Tensor) -> Tensor:
    """Mask at the pixels (frame, row, column) of a batch, read from the images anew."""
    masks = torch.stack([torch.from_numpy(manager.train_dataset.get_numpy_image(i)[..., 3]) for i in range(TRAIN)])
    return masks[tuple(indices.T)].float() / 255


def assert_same(first: tuple[RayBundle, dict], second: tuple[RayBundle, dict]) -> None:
    assert torch.equal(first[0].directions, second[0].directions)
    assert torch.equal(first[1]["image"], second[1]["image"])
    assert torch.equal(first[1]["indices"], second[1]["indices"])


def test_frames_are_in_order_however_they_are_read(manager: AvatarDataManager) -> None:
    frames = [torch.from_numpy(manager.train_dataset.get_numpy_image(index)) for index in range(TRAIN)]
    assert torch.equal(store(manager).images.masks(), torch.stack(frames)[..., 3])


def test_a_frame_that_cannot_be_read_ends_it(manager: AvatarDataManager, monkeypatch: pytest.MonkeyPatch) -> None:
    read = manager.train_dataset.get_numpy_image

    def fail_at_the_third(index: int) -> np.ndarray:
        if index == 2:
            raise InputError(Path("frame.png"), "expected a readable image", "Extract the frame again")
        return read(index)

    monkeypatch.setattr(manager.train_dataset, "get_numpy_image", fail_at_the_third)
    with pytest.raises(InputError, match=r"frame\.png"):
        store(manager)


def test_same_seed_and_step_give_the_same_rays(manager: AvatarDataManager) -> None:
    frames = store(manager)
    assert_same(manager.next_train(17), frames.draw_rays(frames.frame_of_step(17, 1), RAYS, 17, with_surroundings=True))
    before = manager.next_train(17)
    manager.next_train(3)
    assert_same(before, manager.next_train(17))


@pytest.mark.parametrize(("size", "dilation"), [(16, 0.0), (8, 0.3), (120, 0.0)])
def test_patches_by_the_kernel_are_those_of_torch(manager: AvatarDataManager, size: int, dilation: float) -> None:
    """Also at the image's edge, outside the crops, and in patches larger than the image."""
    frames = FrameStore(
        manager.train_dataset, DEVICE, replace(manager.config, patch_size=size, mask_dilation=dilation), 0
    )
    for frame, listed in product((0, TRAIN - 1), frames.pixels):
        drawn = []
        for draw in (frames._draw_by_kernel, frames._draw_by_torch):
            frames.generator.manual_seed(frame)
            frames._frame.fill_(frame)
            drawn.append(draw(listed, RAYS))
        (ours, batch), (theirs, expected) = drawn
        assert batch.keys() == expected.keys() and batch["patch_size"] == expected["patch_size"]
        assert torch.equal(batch["indices"], expected["indices"])
        torch.testing.assert_close(batch["image"], expected["image"], atol=1e-7, rtol=0)
        assert ours.metadata.keys() == theirs.metadata.keys()
        for name in ("origins", "directions", "pixel_area", "camera_indices", "times"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=1e-6, rtol=1e-5)
        for name, value in theirs.metadata.items():
            torch.testing.assert_close(ours.metadata[name], value, atol=1e-6, rtol=1e-6)


def test_late_steps_have_more_rays(manager: AvatarDataManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager.config, "late_rays_mult", 2)
    monkeypatch.setattr(manager.config, "late_rays_start", 7)
    early, late = (manager.next_train(step) for step in (6, 7))
    frame = store(manager).frame_of_step(7, 1)
    assert_same(late, store(manager).draw_rays(frame, 2 * RAYS, 7, with_surroundings=True))
    assert 0 < len(early[0]) < len(late[0]) == len(late[1]["image"])


def test_other_steps_seeds_and_ranks_give_other_rays(manager: AvatarDataManager) -> None:
    reference = store(manager).draw_rays(2, RAYS, 17)[1]["indices"]
    for other in (
        store(manager).draw_rays(2, RAYS, 18),
        store(manager, seed=1).draw_rays(2, RAYS, 17),
        store(manager, rank=1).draw_rays(2, RAYS, 17),
    ):
        assert not torch.equal(other[1]["indices"], reference)


def test_every_pass_visits_every_frame_once_in_a_new_order(manager: AvatarDataManager) -> None:
    frames = [manager.train_frames.frame_of_step(step, 1) for step in range(3 * TRAIN)]
    passes = [frames[start : start + TRAIN] for start in range(0, len(frames), TRAIN)]
    assert all(sorted(one) == list(range(TRAIN)) for one in passes)
    assert passes[0] != passes[1] != passes[2]


def test_processes_share_a_pass_among_them(manager: AvatarDataManager) -> None:
    stores = [store(manager, rank) for rank in range(2)]
    frames = [one.frame_of_step(step, 2) for step in range(TRAIN // 2) for one in stores]
    assert sorted(frames) == list(range(TRAIN))


def test_batch_is_of_one_frame_with_its_colors_pose_and_time(manager: AvatarDataManager) -> None:
    rays, batch = manager.next_train(5)
    frame = manager.train_frames.frame_of_step(5, 1)
    assert len(rays) == len(batch["image"]) == RAYS
    assert (batch["indices"][:, 0] == frame).all() and (rays.camera_indices == frame).all()
    image = torch.from_numpy(manager.train_dataset.get_numpy_image(frame)).float() / 255
    seen = image[tuple(batch["indices"][:, 1:].T)]
    torch.testing.assert_close(batch["image"][:, 3], seen[:, 3])
    torch.testing.assert_close(blend(batch["image"], 0.3), blend(seen, 0.3))
    pose_id = rays.metadata["pose_id"]
    assert pose_id.shape == (RAYS, 1) and pose_id.dtype == torch.int64 and (pose_id == frame).all()
    assert rays.times is not None
    torch.testing.assert_close(rays.times, torch.full((RAYS, 1), frame / (TRAIN - 1)))


def test_eval_batch_is_of_a_held_out_frame_and_its_own_pose(manager: AvatarDataManager) -> None:
    seen = set()
    for step in range(HELDOUT):
        rays, _ = manager.next_eval(step)
        assert len(rays.metadata["pose_id"].unique()) == 1
        seen.add(int(rays.metadata["pose_id"][0]))
    expected = manager.eval_dataset.cameras.metadata["pose_id"].flatten().tolist()
    assert seen == set(expected) and min(expected) >= TRAIN, "rows of the poses that no training frame has"


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_rays_are_nerfstudios(manager: AvatarDataManager) -> None:
    for frame in (0, TRAIN - 1):
        pixels = torch.randint(SIZE * SIZE, (500,), generator=torch.Generator().manual_seed(frame))
        ours = manager.train_frames.rays(torch.tensor([frame]), pixels)
        coords = torch.stack([pixels // SIZE, pixels % SIZE], dim=-1) + 0.5
        theirs = manager.train_dataset.cameras.generate_rays(torch.full((500, 1), frame), coords)
        torch.testing.assert_close(ours.origins, theirs.origins, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.directions, theirs.directions, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.times, theirs.times)
        torch.testing.assert_close(ours.camera_indices, theirs.camera_indices)
        assert torch.equal(ours.metadata["pose_id"], theirs.metadata["pose_id"])
        torch.testing.assert_close(ours.metadata["directions_norm"], theirs.metadata["directions_norm"])
        torch.testing.assert_close(ours.pixel_area, theirs.pixel_area, atol=0, rtol=0.05)


def test_patches_are_centered_on_the_person(manager: AvatarDataManager) -> None:
    size = manager.config.patch_size
    frames = store(manager)
    centered = total = 0
    for step in range(30):
        _, batch = frames.draw_rays(frames.frame_of_step(step, 1), RAYS, step)
        indices = batch["indices"].view(-1, size, size, 3)
        assert len(indices) == RAYS // size**2 == 2
        rows, columns = indices[..., 1], indices[..., 2]
        assert ((rows[:, 1:] - rows[:, :-1]) == 1).all() and ((columns[:, :, 1:] - columns[:, :, :-1]) == 1).all()
        # A patch that would leave the image is moved, and then its middle need not be on the person.
        whole = (rows.amin((1, 2)) > 0) & (rows.amax((1, 2)) < SIZE - 1)
        whole &= (columns.amin((1, 2)) > 0) & (columns.amax((1, 2)) < SIZE - 1)
        middle = indices[whole][:, size // 2, size // 2]
        centered += int((mask_at(manager, middle) > 0.5).sum())
        total += len(middle)
    assert total > 30 and centered == total


def test_size_of_patches_comes_along_and_dilation_moves_their_centers(manager: AvatarDataManager) -> None:
    stores = [store(manager, patch_size=2, mask_dilation=grown) for grown in (0.0, 0.125)]
    drawn = [frames.draw_rays(1, 4 * RAYS, 5)[1] for frames in stores]
    assert [batch["patch_size"] for batch in drawn] == [2, 2]
    # The lower right pixel of a patch of two is its centre.
    near, far = (mask_at(manager, batch["indices"].view(-1, 4, 3)[:, 3]) for batch in drawn)
    assert (near > 0.5).all() and 0.2 < (far > 0.5).float().mean() < 0.9
    assert "patch_size" not in store(manager, sampling="pixels").draw_rays(1, RAYS, 5)[1]


def test_some_patches_of_early_steps_are_centered_beside_the_person(
    manager: AvatarDataManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = store(manager, patch_size=2)
    drawn = [frames.draw_rays(1, 64 * RAYS, step, with_surroundings=True)[1]["indices"] for step in range(4)]
    middles = torch.cat([indices.view(-1, 4, 3)[:, 3] for indices in drawn])
    beside = mask_at(manager, middles) < 0.5
    assert 0.09 < beside.float().mean() < 0.16
    rows = middles[beside][:, 1]
    assert len(rows.unique()) > 20  # all around
    monkeypatch.setattr(manager.config, "surroundings_end", 7)
    early, late = (manager.next_train(step) for step in (6, 7))
    for step, drawn_at, is_early in ((6, early, True), (7, late, False)):
        frame = store(manager).frame_of_step(step, 1)
        assert_same(drawn_at, store(manager).draw_rays(frame, RAYS, step, with_surroundings=is_early))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_share_of_patches_beside_the_person_must_be_one(manager: AvatarDataManager, share: float) -> None:
    with pytest.raises(InputError, match=r"--pipeline.datamanager.surroundings: expected a share"):
        store(manager, surroundings=share)


def test_single_pixels_come_in_their_shares(manager: AvatarDataManager) -> None:
    frames = store(manager, sampling="pixels")
    _, batch = frames.draw_rays(4, 1000, 0)
    inside, edge, anywhere = batch["indices"].split([600, 300, 100])
    assert (mask_at(manager, inside) > 0.5).all()
    silhouette = frames.pixels[1].of(4)
    assert torch.isin(edge[:, 1] * SIZE + edge[:, 2], silhouette).all()
    assert not torch.isin(inside[:, 1] * SIZE + inside[:, 2], silhouette).any()
    share = float((mask_at(manager, edge) > 0.5).float().mean())
    assert 0.2 < share < 0.8, "to both sides of the silhouette"
    covered = float((mask_at(manager, anywhere) > 0.5).float().mean())
    assert covered < 0.4, "mostly background"
    assert len(anywhere[:, 1].unique()) > 40


def test_person_that_fills_the_image_has_no_silhouette_to_draw_from(manager: AvatarDataManager) -> None:
    frames = store(manager, sampling="pixels")
    frames.pixels = pixel_classes(torch.ones(TRAIN, SIZE, SIZE), torch.device("cpu"))
    _, batch = frames.draw_rays(0, 100, 0)
    assert len(batch["indices"]) == 100


def test_stock_attributes_that_nerfstudio_reads(manager: AvatarDataManager) -> None:
    assert manager.get_train_rays_per_batch() == RAYS
    assert manager.get_eval_rays_per_batch() == RAYS
    assert len(manager.fixed_indices_eval_dataloader) == HELDOUT
    camera, batch = next(iter(manager.fixed_indices_eval_dataloader))
    assert batch["image"].shape == (SIZE, SIZE, 3)
    assert camera.metadata is not None and int(camera.metadata["pose_id"].flatten()[0]) >= TRAIN
