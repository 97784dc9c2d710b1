"""A demo person filmed by a camera that is carried about them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.demo.camera_path import carried_camera
from instantavatar_ns.scripts.demo_data import DemoData


def test_the_pivot_keeps_its_place_in_the_picture() -> None:
    pivot = np.array([0.1, -0.2, 5.0])
    phase = np.linspace(0, 2, 40)
    cameras = carried_camera(phase, pivot)
    np.testing.assert_allclose(cameras[0], np.eye(4), atol=1e-12)
    seen = cameras[:, :3, :3] @ pivot + cameras[:, :3, 3]
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], np.tile(pivot[:2] / pivot[2], (40, 1)), atol=1e-9)
    centers = -np.einsum("fji,fj->fi", cameras[:, :3, :3], cameras[:, :3, 3])
    around = np.degrees(np.arctan2(centers[:, 0] - pivot[0], pivot[2] - centers[:, 2]))
    assert np.ptp(around) > 40
    assert np.ptp(np.linalg.norm(centers - pivot, axis=1)) > 0.2


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("carried") / "subject"
    DemoData(folder, size=64, train_frames=6, heldout_frames=2, novel_frames=1, camera="carried").main()
    return folder


def test_the_true_body_lies_in_the_masks_by_the_cameras_of_the_frames(carried: Path) -> None:
    truth, cameras = np.load(carried / "truth.npz"), np.load(carried / "cameras.npz")
    assert cameras["extrinsic"].shape == (8, 4, 4)
    body = load_body_model("free")
    betas, poses, transl = (torch.from_numpy(truth[key]).float() for key in ("betas", "poses", "transl"))
    transforms = body.transforms(betas[0], poses[:, :3], poses[:, 3:], transl)
    vertices = skinned(body.rest(betas[0])[0], body.skinning_weights, transforms).numpy()

    def share_inside(extrinsic: np.ndarray) -> float:
        inside = []
        for index, matrix in enumerate(np.broadcast_to(extrinsic, (8, 4, 4))):
            mask = cv2.imread(str(carried / "masks" / f"mask_{index:04d}.png"), cv2.IMREAD_GRAYSCALE)
            points = (vertices[index] @ matrix[:3, :3].T + matrix[:3, 3]) @ cameras["intrinsic"].T
            columns, rows = np.rint(points[:, :2] / points[:, 2:]).astype(int).T
            inside.append((mask[rows, columns] > 0).mean())
        return float(np.mean(inside))

    assert share_inside(cameras["extrinsic"]) > 0.98
    assert share_inside(np.eye(4)) < 0.9


def test_the_dance_is_filmed_by_the_camera_that_stands_still(carried: Path) -> None:
    np.testing.assert_array_equal(np.load(carried / "novel" / "cameras.npz")["extrinsic"], np.eye(4))


@pytest.mark.nightly
def test_both_cameras_train(tmp_path: Path) -> None:
    from benchmarks.moving_camera import MovingCamera

    output = tmp_path / "figures.json"
    MovingCamera(output, tmp_path / "runs", size=48, train_frames=10, method="instant-avatar-lite", steps=60).main()
    figures = json.loads(output.read_text())["moving_camera"]
    assert min(figures[camera]["heldout_exact_psnr"] for camera in ("still", "carried")) > 17
    assert abs(figures["heldout_loss_db"]) < 3
