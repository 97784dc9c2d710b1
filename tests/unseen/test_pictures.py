"""Pictures of what no view shows: written, filled, read and learned from."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from instantavatar_ns.unseen.pictures import PictureTargets, UnseenView, fill_views, read_views, write_views
from instantavatar_ns.unseen.prior import UnseenPrior
from instantavatar_ns.utils.errors import InputError
from tests.unseen.shells import RADIUS, Shell

SIZE, FOCAL, DISTANCE = 48, 60.0, 1.0
INTRINSIC = np.array([[FOCAL, 0, (SIZE - 1) / 2], [0, FOCAL, (SIZE - 1) / 2], [0, 0, 1.0]])


def view_of_ball() -> UnseenView:
    """A ball seen from behind, along z: all of it is to be filled, but for a strip that was seen."""
    rays = (
        np.stack([*np.meshgrid(np.arange(SIZE), np.arange(SIZE)), np.ones((SIZE, SIZE))], -1)
        @ np.linalg.inv(INTRINSIC).T
    )
    along = DISTANCE / (rays**2).sum(-1)  # to the foot of the middle's perpendicular
    inside = RADIUS**2 - (DISTANCE**2 - along**2 * (rays**2).sum(-1))
    hit = inside > 0
    depth = np.where(hit, along - np.sqrt(inside.clip(0) / (rays**2).sum(-1)), 0.0)
    to_camera = np.eye(4)
    to_camera[2, 3] = DISTANCE
    rgb = np.full((SIZE, SIZE, 3), 255, np.uint8)
    rgb[hit] = (0, 0, 200)
    mask = hit.copy()
    rgb[:, : SIZE // 2 - 4][hit[:, : SIZE // 2 - 4]] = (220, 10, 10)
    mask[:, : SIZE // 2 - 4] = False
    return UnseenView(rgb, mask, depth, to_camera)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_views(tmp_path / "views", [view_of_ball()], INTRINSIC)
    return tmp_path / "views"


def inpainted(view: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The simplest completer there is: OpenCV's inpainting from the person's seen pixels."""
    outside = (view == 255).all(axis=-1)
    return cv2.inpaint(view, (mask | outside).astype(np.uint8), 3, cv2.INPAINT_TELEA)


def test_folder_holds_what_was_written(folder: Path) -> None:
    (view,), intrinsic = read_views(folder)
    expected = view_of_ball()
    for name in ("rgb", "mask", "canonical_to_camera"):
        assert np.array_equal(getattr(view, name), getattr(expected, name))
    np.testing.assert_allclose(view.depth, expected.depth, atol=1e-6)
    assert np.array_equal(intrinsic, INTRINSIC)


def test_pixels_lead_to_the_surface(folder: Path) -> None:
    (view,), intrinsic = read_views(folder)
    points, directions, cosine = view.surface(intrinsic)
    hit = view.depth > 0
    np.testing.assert_allclose(np.linalg.norm(points[hit], axis=-1), RADIUS, atol=1e-4)
    assert (points[hit][:, 2] < 0).all(), "the camera stands where z is negative"
    true = -(points / RADIUS * directions).sum(-1)
    inner = cv2.erode(hit.astype(np.uint8), np.ones((5, 5))) > 0
    np.testing.assert_allclose(cosine[inner], true[inner], atol=0.06)


def test_only_unseen_pixels_are_filled(folder: Path) -> None:
    (path,) = fill_views(folder, lambda view, mask: np.full_like(view, 7))
    filled, view = np.array(Image.open(path)), view_of_ball()
    assert (filled[view.mask] == 7).all() and np.array_equal(filled[~view.mask], view.rgb[~view.mask])


def test_field_takes_the_colors_of_filled_views(folder: Path) -> None:
    """The strip that was seen is red; inpainted from it, so is the back, which the field had blue."""
    fill_views(folder, inpainted)
    targets, field = PictureTargets.of_folder(folder), Shell(back=(0, 0, 1))
    torch.manual_seed(0)
    optimizer = torch.optim.SGD([field.back], lr=1.0)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = targets.loss(field, 256)
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
    assert losses[-1] < 0.05 * losses[0]
    torch.testing.assert_close(field.back.detach(), torch.tensor([0.86, 0.04, 0.04]), atol=0.1, rtol=0)


def test_carried_colors_give_way_to_pictures(folder: Path, prior: UnseenPrior) -> None:
    fill_views(folder, inpainted)
    targets = PictureTargets.of_folder(folder)
    assert prior.distance_from_body(targets.points).max() < 0.015, "its vertices lie 2 cm apart"
    before = float(prior.colored.sum())
    prior.leave_colors_to(targets.points)
    away = prior.vertices[:, 0] < -0.15
    assert prior.colored[away].sum() == prior.unseen[away].sum() > 0
    assert 0.5 * before < float(prior.colored.sum()) < 0.8 * before, "the view shows less than half of the back"
    assert torch.equal(prior.unseen > 0, prior.vertices[:, 2] <= 0), "its geometry is held as before"


def test_more_square_views_count_more(tmp_path: Path) -> None:
    view = view_of_ball()
    write_views(tmp_path / "v", [view], INTRINSIC)
    fill_views(tmp_path / "v", inpainted)
    targets = PictureTargets.of_folder(tmp_path / "v")
    weights = targets.distribution.diff(prepend=targets.distribution.new_zeros(1))
    middle = targets.points[:, :2].norm(dim=-1) < 0.5 * RADIUS
    assert weights[middle].mean() > 2 * weights[~middle].mean()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "cameras.npz").unlink(), r"cameras\.npz.*no such file.*instant-avatar unseen-views"),
        (lambda folder: np.savez(folder / "cameras.npz", intrinsic=INTRINSIC), "found no extrinsics"),
        (lambda folder: None, r"filled: expected filled views, such as 00\.png, found none"),
        (
            lambda folder: Image.new("RGB", (20, 30)).save(folder / "filled" / "00.png"),
            r"00\.png: expected a picture of height and width \(48, 48\).*found \(30, 20\)",
        ),
    ],
)
def test_wrong_folders_end_in_one_error(folder: Path, spoil, message: str) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=message):
        PictureTargets.of_folder(folder)
