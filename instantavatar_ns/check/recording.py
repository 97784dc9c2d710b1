"""Everything that a check compares: masks, cameras and the posed body of a recording's frames."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import copy, deepcopy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.poses import to4x4
from torch import Tensor
from torch.nn.functional import interpolate

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.subject import Subject

# Pixels that the person's longer side gets, of some two centimetres each, and the most that an image's gets.
_PERSON_SIDE, _LONGEST_SIDE, _LARGEST_SCALE = 80, 480, 4.0
_NUM_POINTS = 4096
_CHUNK = 32  # frames scaled at once
_STILL = 1e-4  # cameras whose matrices differ by less are the same


class BodySurface:
    """Points spread evenly over a body's surface, which move with its bones.

    Args:
        body: The person's body.
        betas: Shape that the points are spread on.
        device: Where to compute.
    """

    def __init__(self, body: BodyModel, betas: Float[Tensor, "10"], device: torch.device | str = "cpu") -> None:
        corners = body.rest(betas)[0][body.faces].cpu()
        areas = 0.5 * torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
        # trimesh.sample draws at random, which leaves gaps; here each part of the surface gets its point.
        generator = torch.Generator().manual_seed(0)
        steps = (torch.arange(_NUM_POINTS) + 0.5) / _NUM_POINTS
        chosen = torch.searchsorted(areas.cumsum(0) / areas.sum(), steps).clamp_max(len(areas) - 1)
        u, v = torch.rand(2, _NUM_POINTS, generator=generator)
        u, v = torch.where(u + v > 1, 1 - u, u), torch.where(u + v > 1, 1 - v, v)
        self.spacing = float((areas.sum() / _NUM_POINTS).sqrt())
        """Metres between neighbouring points."""
        self.body = deepcopy(body).to(device)
        self._place(body.faces.cpu()[chosen].to(device), torch.stack([1 - u - v, u, v], dim=-1).to(device))

    def _place(self, corners: Int[Tensor, "points corners"], barycentric: Float[Tensor, "points corners"]) -> None:
        self._corners, self._barycentric = corners, barycentric[..., None]
        self._weights = (self.body.skinning_weights[corners] * self._barycentric).sum(dim=1)

    def of_vertices(self) -> BodySurface:
        """The same body, its points the vertices of its mesh, which `body.faces` joins."""
        surface = copy(self)
        vertices = torch.arange(len(self.body.skinning_weights), device=self._corners.device)[:, None]
        surface._place(vertices, torch.ones_like(vertices, dtype=torch.float32))
        return surface

    def posed(self, poses: PoseSequence) -> tuple[Float[Tensor, "frames points 3"], Float[Tensor, "frames joints 3"]]:
        """Points and joints in the dataset's world, metres; pose-dependent offsets, millimetres, are left out."""
        device = self._weights.device
        betas, *pose = (value.to(device) for value in (poses.betas, poses.global_orient, poses.body_pose, poses.transl))
        vertices, joints = self.body.rest(betas)
        transforms = self.body.transforms(betas, *pose)
        points = (vertices[self._corners] * self._barycentric).sum(dim=1)
        moved = skinned(joints, torch.eye(len(joints), device=device), transforms)
        return skinned(points, self._weights, transforms), moved


@dataclass(frozen=True)
class Recording:
    """Some frames of a recording, with what a check needs; parallel arrays.

    Attributes:
        masks: The person, in images of another size than the files'.
        focal: Focal lengths along x and y, pixels of the masks.
        center: Principal points, pixels of the masks, the first pixel's middle at a half.
        world_to_camera: From the dataset's world to cameras that look along z, y down.
        surface: The person's body.
        frame_poses: The pose of each frame.
        poses: All poses that are known of the recording.
        pose_numbers: Place of each of these poses in the recording, ascending.
        numbers: Place of each frame in the recording.
        points: Of the body's surface in each frame, metres, in the dataset's world.
        joints: In each frame, metres, in the dataset's world.
        scale: Pixels of the masks for one of the image, along x and y.
    """

    masks: Bool[Tensor, "frames height width"]
    focal: Float[Tensor, "frames 2"]
    center: Float[Tensor, "frames 2"]
    world_to_camera: Float[Tensor, "frames 4 4"]
    surface: BodySurface
    frame_poses: PoseSequence
    poses: PoseSequence
    pose_numbers: Int[Tensor, "poses"]
    numbers: Int[Tensor, "frames"]
    points: Float[Tensor, "frames points 3"]
    joints: Float[Tensor, "frames joints 3"]
    scale: tuple[float, float]

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def image_size(self) -> Float[Tensor, "2"]:
        """Width and height of the masks, pixels."""
        return self.focal.new_tensor([self.masks.shape[2], self.masks.shape[1]])

    @property
    def pixels(self) -> Float[Tensor, "2"]:
        """Pixels of the masks for one of the image, along x and y."""
        return self.focal.new_tensor(self.scale)

    @property
    def camera_moves(self) -> bool:
        """Return True if frames have different extrinsics."""
        return bool(((self.world_to_camera - self.world_to_camera[:1]).abs() > _STILL).any())

    def subset(self, count: int) -> Recording:
        """At most `count` of the frames, spread over the recording."""
        if count >= len(self):
            return self
        return self.at(torch.linspace(0, len(self) - 1, count).round().long().tolist())

    def at(self, frames: list[int]) -> Recording:
        """Some of the frames, by their indices."""
        chosen = torch.tensor(frames)
        names = ("masks", "focal", "center", "world_to_camera", "points", "joints")
        arrays = {name: getattr(self, name)[chosen.to(self.focal.device)] for name in names}
        poses = self.frame_poses.rows(chosen)
        return replace(self, **arrays, numbers=self.numbers[chosen], frame_poses=poses)

    def poses_at(self, numbers: Int[Tensor, "frames"]) -> PoseSequence:
        """Poses at places of the recording; where none is known, the frame's own."""
        known, own = torch.isin(numbers, self.pose_numbers), self.frame_poses
        rows = torch.searchsorted(self.pose_numbers, numbers.contiguous()).clamp_max(len(self.poses) - 1)
        found = self.poses.rows(rows)
        names = ("global_orient", "body_pose", "transl")
        return replace(
            found, **{name: torch.where(known[:, None], getattr(found, name), getattr(own, name)) for name in names}
        )

    def with_poses(self, poses: PoseSequence) -> Recording:
        """The same frames, the body in other poses."""
        points, joints = self.surface.posed(poses)
        return replace(self, points=points, joints=joints, frame_poses=poses)

    def with_vertices(self) -> Recording:
        """The same frames, the points those of `BodySurface.of_vertices`."""
        return replace(self, surface=self.surface.of_vertices()).with_poses(self.frame_poses)


def read_recording(dataset: AvatarDataset, device: torch.device | str = "cpu") -> Recording:
    """Recording of all frames of a data set; images are read too, so that those that cannot be used are found.

    Args:
        dataset: The frames.
        device: Where to compute.

    Raises:
        InputError: An image, a mask or the body model cannot be used.
    """

    def mask(index: int) -> UInt8[Tensor, "height width"]:
        return torch.from_numpy(dataset.get_numpy_image(index)[..., 3])

    with ThreadPoolExecutor() as pool:
        masks = torch.stack([*pool.map(mask, range(len(dataset)))]).to(device)
    return make_recording(masks, dataset.cameras, dataset.subject, load_body_model(dataset.subject.body_model))


def make_recording(
    masks: UInt8[Tensor, "frames height width"], cameras: Cameras, subject: Subject, body: BodyModel
) -> Recording:
    """Recording of the frames of a data parser's outputs.

    Args:
        masks: Opacity of the person in the frames, on any device, which is the one that computes.
        cameras: Of the frames.
        subject: The person, and the frames' places in the recording.
        body: The person's body.
    """
    device, poses = masks.device, subject.poses
    cameras = cameras.to(device)
    assert cameras.metadata is not None
    world_to_dataset = subject.world_to_dataset.to(device).double()
    camera_to_dataset = world_to_dataset @ to4x4(cameras.camera_to_worlds).double()
    opengl_to_opencv = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64, device=device))
    small, scale = scaled_masks(masks)
    numbers = subject.recording_numbers
    order = numbers.argsort()
    surface = BodySurface(body, poses.betas, device)
    # A frame may belong to both splits with poses of two qualities: its own are those that its camera names.
    frame_poses = poses.rows(cameras.metadata["pose_id"].flatten().cpu())
    points, joints = surface.posed(frame_poses)
    pixels = torch.tensor(scale, device=device)
    return Recording(
        masks=small,
        focal=torch.cat([cameras.fx, cameras.fy], dim=-1) * pixels,
        center=torch.cat([cameras.cx, cameras.cy], dim=-1) * pixels,
        world_to_camera=(opengl_to_opencv @ torch.linalg.inv(camera_to_dataset)).float(),
        surface=surface,
        frame_poses=frame_poses,
        poses=poses.rows(subject.recording_rows[order]),
        pose_numbers=numbers[order],
        numbers=subject.frame_numbers,
        points=points,
        joints=joints,
        scale=scale,
    )


def scaled_masks(
    masks: UInt8[Tensor, "frames height width"],
) -> tuple[Bool[Tensor, "frames small_height small_width"], tuple[float, float]]:
    """Masks scaled so that the person is some 80 pixels long, and the scale along x and y."""
    height, width = masks.shape[1:]
    sides = []
    for axis in (1, 2):
        hit = (masks.amax(dim=axis) > 127).float()
        places = torch.arange(hit.shape[1], device=masks.device)
        last, first = (hit * places).amax(dim=1), (hit * places.flip(0)).amax(dim=1)
        sides.append((last + first - len(places) + 2).clamp_min(1))
    side = float(torch.maximum(*sides).median())
    scale = min(_LARGEST_SCALE, _PERSON_SIDE / side, _LONGEST_SIDE / max(height, width))
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    mode = "area" if scale < 1 else "bilinear"
    parts = [interpolate(part[:, None].float(), size, mode=mode)[:, 0] > 127 for part in masks.split(_CHUNK)]
    return torch.cat(parts), (size[1] / width, size[0] / height)
