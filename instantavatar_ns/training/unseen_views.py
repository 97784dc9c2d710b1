"""Views of what no training view shows: written from a trained model, and taken into a training once filled."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.unseen.pictures import PictureTargets, UnseenView, write_views
from instantavatar_ns.unseen.shown import SeenField
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.linalg import rigid_inverse
from instantavatar_ns.utils.pinhole_rays import pixel_directions

_FIELD_OF_VIEW = math.radians(40)
_CLOTHES = 0.08  # metres around the body that a view shows too
_HARDLY_ANY = 0.002  # share of a view's pixels: with fewer to fill it is left out
# From nerfstudio's camera (y up, looking along -z) to OpenCV's.
_FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))


@torch.no_grad()
def write_unseen_views(model: InstantAvatarModel, folder: Path, count: int, size: int) -> int:
    """Write views from around the canonical person with what the training views did not see; see `unseen/pictures.py`.

    Args:
        model: A trained model.
        folder: To make; must not exist yet.
        count: Views, at equal angles around the person, the first from the front.
        size: Height and width of a view, pixels.

    Returns:
        How many views were written: those without anything to fill are left out.

    Raises:
        InputError: It is not known what was seen, or there is nothing to fill.
    """
    model.eval()
    model.unseen.require_coverage()
    body, cameras = canonical_cameras(model, count, size)
    seen_renderer = model.renderer.with_field(SeenField(model.unseen, model.field))
    background = torch.ones(3, device=model.device)
    focal, views = _focal(size), []
    for camera, camera_to_root in cameras:
        outputs = model.renderer.render_image(camera, body, background)
        seen = seen_renderer.render_image(camera, body, torch.zeros_like(background))["rgb"][..., 0]
        accumulation, distance = outputs["accumulation"][..., 0], outputs["depth"][..., 0]
        mask = accumulation - seen > 0.5
        if float(mask.float().mean()) < _HARDLY_ANY:
            continue
        depth = torch.where(accumulation > 0.5, distance * _along_axis(focal, size).to(distance), 0.0)
        rgb = (outputs["rgb"].clamp(0, 1) * 255).round().byte()
        canonical_to_camera = (_FLIP @ rigid_inverse(camera_to_root)).double().numpy()
        views.append(UnseenView(rgb.cpu().numpy(), mask.cpu().numpy(), depth.cpu().numpy(), canonical_to_camera))
    if not views:
        message = "expected views that show what no training view saw, found none"
        raise InputError("the run", message, "There is nothing to fill: the avatar has been seen from all sides")
    middle = (size - 1) / 2  # OpenCV's: the middle of the first pixel at 0
    write_views(folder, views, np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1.0]]))
    return len(views)


def canonical_cameras(
    model: InstantAvatarModel, count: int, size: int
) -> tuple[PosedBody, list[tuple[Cameras, Float[Tensor, "4 4"]]]]:
    """Return the person in the canonical pose, and cameras around, from the front on.

    Args:
        model: A model.
        count: Cameras, at equal angles.
        size: Height and width of their images, pixels.

    Returns:
        The pose, and each camera with its pose in canonical space (nerfstudio's axes).
    """
    rest, eye, focal = model.poses.rest, torch.eye(4, device=model.device), _focal(size)
    # Canonical space itself: the rest pose turns about joints that may have been moved since.
    body = PosedBody(rest.world_to_root, eye.expand_as(rest.bone_transforms).contiguous())
    root_to_world, cameras = rigid_inverse(rest.world_to_root.cpu()), []
    for pose in _around(model.unseen.vertices.cpu(), count):
        camera = Cameras((root_to_world @ pose)[None, :3], focal, focal, size / 2, size / 2, size, size)
        cameras.append((camera, pose))
    return body, cameras


def _focal(size: int) -> float:
    return size / 2 / math.tan(_FIELD_OF_VIEW / 2)


def _around(vertices: Float[Tensor, "vertices 3"], count: int) -> list[Float[Tensor, "4 4"]]:
    """Poses of cameras around a body whose up is y and whose front is z, from the front on, the body in full view."""
    center = (vertices.amin(dim=0) + vertices.amax(dim=0)) / 2
    reach = float((vertices - center).norm(dim=-1).max()) + _CLOTHES
    distance = reach / math.sin(_FIELD_OF_VIEW / 2)
    poses = []
    for number in range(count):
        angle = 2 * math.pi * number / count
        cosine, sine = math.cos(angle), math.sin(angle)
        pose = torch.tensor([[cosine, 0, sine, 0], [0, 1, 0, 0], [-sine, 0, cosine, 0], [0, 0, 0, 1]])
        pose[:3, 3] = center + distance * pose[:3, 2]
        poses.append(pose)
    return poses


def _along_axis(focal: float, size: int) -> Float[Tensor, "size size"]:
    """Of each pixel the part of its ray's length that leads along the viewing axis."""
    pixels, middle = torch.arange(size), size / 2
    intrinsics = torch.tensor([focal, focal, middle, middle])
    return 1 / pixel_directions(pixels, pixels[:, None], intrinsics, torch.eye(4)[:3]).norm(dim=-1)


def take_unseen_views(model: InstantAvatarModel) -> None:
    """Let a model train on filled views, in place of colours carried on, from `unseen_color_start` on.

    Args:
        model: Its options name the folder; without any it stays as it is.

    Raises:
        InputError: The folder holds no filled views, or those of another person.
    """
    folder = model.config.unseen_views
    if folder is None:
        return
    pictures = PictureTargets.of_folder(folder).to(model.device)
    places = model.unseen.distance_from_body(pictures.points)
    if float(places.median()) > _CLOTHES:
        message = f"expected views of this person, found points {100 * float(places.median()):.0f} cm off the body"
        raise InputError(folder, message, "Write the views anew from a run on the same data")
    model.unseen.pictures = pictures
    model.unseen.leave_colors_to(pictures.points)
    CONSOLE.print(f"Of what no training view shows, {len(pictures.points)} pixels of {folder}/filled give the colours")
