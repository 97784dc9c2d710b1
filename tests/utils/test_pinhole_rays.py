"""Rays of pinhole cameras, beside nerfstudio's."""

from __future__ import annotations

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from scipy.spatial.transform import Rotation

from instantavatar_ns.utils.pinhole_rays import pinhole_camera

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras


def pinhole_image(camera: Cameras) -> tuple[torch.Tensor, torch.Tensor] | None:
    pinhole = pinhole_camera(camera)
    return None if pinhole is None else pinhole.rays()


def cameras(count: int = 1, **changes) -> Cameras:
    """Cameras that look somewhere, with images of 7 by 5 pixels."""
    poses = torch.zeros(count, 3, 4)
    poses[..., :3] = torch.from_numpy(Rotation.random(count, random_state=0).as_matrix())
    poses[..., 3] = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    sizes = {"fx": 9.0, "fy": 8.0, "cx": 3.2, "cy": 2.9, "width": 7, "height": 5}
    return Cameras(camera_to_worlds=poses, **(sizes | changes))


@pytest.mark.parametrize("distortion", [None, torch.zeros(6)])
def test_rays_are_nerfstudios(distortion: torch.Tensor | None) -> None:
    camera = cameras(distortion_params=None if distortion is None else distortion[None])
    image = pinhole_image(camera)
    theirs = camera.generate_rays(camera_indices=0, keep_shape=True)
    assert image is not None and image[1].shape == (5, 7, 3)
    torch.testing.assert_close(image[0].expand(5, 7, 3).reshape(theirs.origins.shape), theirs.origins)
    torch.testing.assert_close(image[1].reshape(theirs.directions.shape), theirs.directions, atol=1e-6, rtol=0)


def test_camera_without_batch_and_the_first_of_several() -> None:
    several = cameras(3)
    images = [pinhole_image(camera) for camera in (several[0], several[:1], several)]
    for image in images:
        assert image is not None and images[0] is not None
        assert torch.equal(image[0], images[0][0]) and torch.equal(image[1], images[0][1])


@pytest.mark.parametrize(
    "changes",
    [
        {"camera_type": CameraType.FISHEYE},
        {"camera_type": CameraType.EQUIRECTANGULAR},
        {"distortion_params": torch.tensor([[0.1, 0.0, 0.0, 0.0, 0.0, 0.0]])},
        {"distortion_params": torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, -1e-3]])},
    ],
)
def test_other_cameras_are_left_to_nerfstudio(changes: dict) -> None:
    assert pinhole_image(cameras(**changes)) is None
