"""A trained avatar as splats: fitted to its images in the rest pose from all around, posed, and written to files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import monotonic

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.deformer.voxels import interpolate
from instantavatar_ns.export.avatar import AvatarMesh
from instantavatar_ns.export.splats.cloud import Splats, moved, seeds, surface_points
from instantavatar_ns.export.splats.files import ply_bytes, splat_glb_bytes
from instantavatar_ns.export.splats.fitting import fit, psnr
from instantavatar_ns.export.splats.rasterizer import View, rasterizer_name
from instantavatar_ns.export.texture import surface_colors
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.motion import Motion
from instantavatar_ns.utils.progress import shown_progress

VIEWS = 24
FIT = "fit"
"""Name in the GLB's `asset.extras` of how like the avatar the splats are: PSNR beside its images, decibels."""
_ELEVATIONS = (0.0, 25.0, -15.0, 55.0)  # degrees, in turn
_FIELD_OF_VIEW = math.radians(30)
_MARGIN = 1.05  # around the person


@dataclass(frozen=True)
class Effort:
    """Pains taken over the fit.

    Attributes:
        splats: How many.
        size: Height and width of the images, pixels.
        steps: Of the fit.
    """

    splats: int
    size: int
    steps: int

    @classmethod
    def on(cls, device: torch.device, splats: int | None = None) -> Effort:
        """Effort that takes seconds on a GPU, and minutes on a CPU.

        Args:
            device: Where the model lies.
            splats: How many; by default what the images can tell apart.
        """
        usual = cls(40_000, 512, 600) if device.type == "cuda" else cls(8_000, 160, 250)
        return usual if splats is None else cls(splats, usual.size, usual.steps)


class AvatarSplats:
    """A trained avatar as splats in the canonical pose.

    Args:
        avatar: The avatar with its surface.
        effort: Pains to take.
    """

    def __init__(self, avatar: AvatarMesh, effort: Effort) -> None:
        self.avatar, self.effort = avatar, effort
        model = avatar.model
        points, normals = surface_points(avatar.surface, effort.splats)
        colors = surface_colors(avatar.shade, points, normals)[0]
        start = seeds(points, normals, colors / 255).to(model.device)
        images, views = neural_images(model, torch.from_numpy(avatar.surface.vertices), effort.size)
        CONSOLE.log(f"Splats are fitted in {effort.steps} steps; they are drawn by {rasterizer_name(model.device)}.")
        begin = monotonic()
        fitted = fit(start, views, images, effort.steps)
        self.psnr = psnr(fitted, views, images)
        self.splats = fitted.to("cpu")
        like = f"{self.psnr:.1f} dB beside the avatar's images from {VIEWS} views"
        CONSOLE.log(f"{len(points)} splats, {like}, fitted in {monotonic() - begin:.1f} s.")

    def files(self, name: str, motions: list[Motion], pose: PosedBody) -> dict[str, bytes]:
        """The splats with skin and clips as `<name>.glb`, and in one pose as `<name>.ply`, the first one last.

        Args:
            name: Of the files, without an ending.
            motions: Clips.
            pose: The pose of the PLY.
        """
        return {f"{name}.ply": ply_bytes(self.posed(pose)), f"{name}.glb": self.glb(motions)}

    def glb(self, motions: list[Motion]) -> bytes:
        """The splats with skin and clips, as a GLB file.

        Args:
            motions: Clips.
        """
        skeleton = self.avatar.skeleton()
        rest, clips = self.avatar.clips(skeleton, motions)
        joints, weights = self.avatar.strongest_bones(self.splats.centers)
        return splat_glb_bytes(
            self.splats,
            joints,
            weights,
            skeleton=skeleton,
            rest=rest,
            clips=clips,
            dataset_to_upright=self.avatar.dataset_to_upright,
            extras={FIT: {"psnr": self.psnr, "views": VIEWS, "image_size": self.effort.size}},
        )

    @torch.no_grad()
    def posed(self, pose: PosedBody) -> Splats:
        """The splats in a pose, in the upright world, moved by all their weights.

        Args:
            pose: The pose.
        """
        deformer = self.avatar.model.deformer
        canonical = self.splats.centers.to(self.avatar.model.device)
        weights = interpolate(deformer.skinning_weights, canonical, deformer.box).cpu()
        blended = torch.einsum("nj,jrc->nrc", weights, pose.bone_transforms.cpu())
        return moved(self.splats, (self.avatar.root_to_upright(pose) @ blended)[:, :3].numpy())


@torch.no_grad()
def neural_images(
    model: InstantAvatarModel, points: Float[Tensor, "n 3"], size: int, shift: float = 0.0
) -> tuple[Float[Tensor, "views size size 4"], list[View]]:
    """Images of the rest pose from all around, and their cameras in the canonical space.

    Args:
        model: A trained model.
        points: Canonical points all over the person, which the images show whole, metres.
        size: Height and width of the images, pixels.
        shift: How far the cameras are moved, by the way to the next one: at 0.5 they are between those of 0.

    Returns:
        Colour on white and opacity, on the model's device.
    """
    rest = model.poses.rest
    # In the rest pose all bones move as one.
    canonical_to_world = torch.linalg.inv(rest.world_to_root) @ rest.bone_transforms[0]
    placed = points.to(canonical_to_world) @ canonical_to_world[:3, :3].T + canonical_to_world[:3, 3]
    middle = (placed.amin(dim=0) + placed.amax(dim=0)) / 2
    radius = float((placed - middle).norm(dim=1).max()) * _MARGIN
    cameras = orbit(middle.cpu(), radius / math.sin(_FIELD_OF_VIEW / 2), shift)
    focal = size / 2 / math.tan(_FIELD_OF_VIEW / 2)
    images, views = [], []
    with shown_progress("Rendering the avatar") as progress:
        for number, camera_to_world in enumerate(cameras, 1):
            images.append(_neural_image(model, rest, camera_to_world, focal, size))
            # From nerfstudio's camera, y up, to one that looks along +z.
            world_to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])) @ torch.linalg.inv(camera_to_world)
            views.append(View(world_to_camera.to(canonical_to_world) @ canonical_to_world, focal, size, size))
            progress(number / len(cameras))
    return torch.stack(images), views


def _neural_image(
    model: InstantAvatarModel, body: PosedBody, camera_to_world: Float[Tensor, "4 4"], focal: float, size: int
) -> Float[Tensor, "size size 4"]:
    camera = Cameras(camera_to_world[None, :3], focal, focal, size / 2, size / 2, size, size)
    white = torch.ones(3, device=model.device)
    chunk = model.config.eval_num_rays_per_chunk
    outputs = model.renderer.render_image(camera, body, white, rays_per_chunk=chunk)
    # Copied: a captured image is overwritten by the next.
    return torch.cat([outputs["rgb"], outputs["accumulation"]], dim=-1).clone()


def orbit(middle: Float[Tensor, "3"], distance: float, shift: float = 0.0) -> Float[Tensor, "views 4 4"]:
    """Cameras all around a place that look at it from different heights: nerfstudio's camera-to-world matrices.

    Args:
        middle: The place, z up, metres.
        distance: To the cameras, metres.
        shift: How far each is turned towards the next one, by the angle between the two.
    """
    azimuths = 2 * math.pi * (torch.arange(VIEWS) + shift) / VIEWS
    elevations = torch.deg2rad(torch.tensor(_ELEVATIONS)).repeat(VIEWS // len(_ELEVATIONS))
    elevations = elevations.lerp(elevations.roll(-1), shift)
    level = elevations.cos()
    backwards = torch.stack([level * azimuths.cos(), level * azimuths.sin(), elevations.sin()], dim=1)
    right = torch.stack([-azimuths.sin(), azimuths.cos(), torch.zeros(VIEWS)], dim=1)
    poses = torch.eye(4).repeat(VIEWS, 1, 1)
    poses[:, :3, 0], poses[:, :3, 1], poses[:, :3, 2] = right, torch.linalg.cross(backwards, right), backwards
    poses[:, :3, 3] = middle + distance * backwards
    return poses
