"""Pixel centers: a point that a data set's camera sees lies where nerfstudio's rays look, to a fraction of a pixel."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from instantavatar_ns.data.datamanager import AvatarDataManagerConfig, FrameStore
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.data.people_snapshot_dataparser import PeopleSnapshotDataParserConfig
from instantavatar_ns.data.pixel_centers import resize_intrinsics
from instantavatar_ns.demo.render import camera_intrinsics, render_frame
from instantavatar_ns.utils.pinhole_rays import pinhole_camera
from tests.data.subjects import HEIGHT, INTRINSIC, WIDTH, write_instantavatar_folder, write_people_snapshot

# A quarter of a pixel of the files must show; what is left is the rounding to 8 bits and, in videos, the codec.
TOLERANCE = 0.06
POINT = np.array([0.11, -0.07, 1.9])


def spot(intrinsic, size, point=POINT, radius=2.5):
    """An image (height, width) of a blurred spot around a point in the camera's axes, as OpenCV projects it."""
    x, y = cv2.projectPoints(point[None], np.zeros(3), np.zeros(3), intrinsic, np.zeros(5))[0].reshape(2)
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.round(250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))).astype(np.uint8)


def pixels_off(outputs, point=POINT):
    """Distance in x and y, pixels of the images as they are trained on, between a spot and the rays that see it."""
    dataset, camera = AvatarDataset(outputs), outputs.cameras[0]
    red = torch.from_numpy(dataset.get_numpy_image(0)[..., 0].astype(np.float32))
    pinhole = pinhole_camera(camera)
    image_rays = pinhole.rays()[1]
    frames = FrameStore(dataset, "cpu", AvatarDataManagerConfig(), rank=0)
    training_rays = frames.rays(torch.zeros(1, dtype=torch.long), torch.arange(red.numel())).directions
    torch.testing.assert_close(training_rays.view_as(image_rays), image_rays, atol=1e-5, rtol=0)
    stock = camera.generate_rays(camera_indices=0).directions
    torch.testing.assert_close(stock, image_rays, atol=1e-5, rtol=0)
    # In the camera's axes; the video's codec leaves noise far from the spot.
    local = image_rays @ pinhole.camera_to_world[:, :3] * torch.tensor([1.0, -1.0, -1.0])
    slopes, weight = local[..., :2] / local[..., 2:], (red - 20).clamp_min(0)
    seen = (slopes * weight[..., None]).sum(dim=(0, 1)) / weight.sum()
    return ((seen - torch.tensor(point[:2] / point[2])) * pinhole.intrinsics[:2]).abs().max()


@pytest.mark.parametrize("downscale", [1, 2])
def test_instantavatar_folder(tmp_path, downscale):
    write_instantavatar_folder(tmp_path, 2)
    Image.fromarray(np.stack([spot(INTRINSIC, (HEIGHT, WIDTH))] * 3, axis=-1)).save(tmp_path / "images/image_0000.png")
    outputs = InstantAvatarDataParserConfig(data=tmp_path, downscale=downscale).setup().get_dataparser_outputs("train")
    assert pixels_off(outputs) < TOLERANCE


@pytest.mark.parametrize("downscale", [1, 2])
def test_people_snapshot(tmp_path, downscale):
    data = tmp_path / "somebody"
    write_people_snapshot(data)
    video = cv2.VideoWriter(str(data / "somebody.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30.0, (64, 64))
    intrinsic = np.array([[128.0, 0, 32.0], [0, 128.0, 30.0], [0, 0, 1]])
    for _ in range(12):
        video.write(np.stack([spot(intrinsic, (64, 64))] * 3, axis=-1))
    video.release()
    config = PeopleSnapshotDataParserConfig(
        data=data, body_model="free", cache_dir=tmp_path / "cache", downscale=downscale, train_frames=(0, 1, 1)
    )
    assert pixels_off(config.setup().get_dataparser_outputs("train")) < TOLERANCE


def test_demo_data_counts_as_opencv():
    """A small square, ray-cast as the demo's frames are, lies where OpenCV projects its middle."""
    size, corners = 60, np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * 0.05
    intrinsic = camera_intrinsics(size)
    _, alpha = render_frame(
        corners + POINT,
        np.array([[0, 2, 1], [0, 3, 2]]),
        np.tile([0.0, 0.0, -1.0], (4, 1)),
        intrinsics=intrinsic,
        size=size,
        samples=8,
        albedo=lambda face, _: np.ones((len(face), 3)),
    )
    rows, columns = np.mgrid[:size, :size]
    middle = np.array([(columns * alpha).sum(), (rows * alpha).sum()]) / alpha.sum()
    np.testing.assert_allclose(middle, (intrinsic @ POINT)[:2] / POINT[2], atol=TOLERANCE)


def test_resizing_keeps_the_edges_of_the_image():
    resized = resize_intrinsics(torch.tensor(INTRINSIC), 0.5, 0.25)
    assert resized.tolist() == [[45.0, 0.0, 8.25], [0.0, 20.0, 5.875], [0.0, 0.0, 1.0]]
    # The left edge of the image lies half a pixel before the first center, at any size.
    for matrix in (torch.tensor(INTRINSIC), resized):
        left = (-0.5 - matrix[0, 2]) / matrix[0, 0]
        assert left == pytest.approx(-17.5 / 90.0)
