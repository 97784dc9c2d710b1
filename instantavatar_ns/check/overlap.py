"""Overlap of the posed body's silhouette with the person's mask, frame by frame."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from instantavatar_ns.check.recording import Recording

_NEAR = 0.05  # metres in front of a camera from which on something is seen
_WIDEST_GAP = 8  # pixels between neighbouring points that are closed
_CHUNK = 64  # frames drawn at once


class Overlap(NamedTuple):
    """Measures of each frame, from 0 to 1.

    Attributes:
        coverage: Share of the mask that the body covers.
        inside: Share of the body, as far as it lies within the image, that lies within the mask; 0 where none does.
        iou: Intersection over union of body and mask.
        joints: Share of the joints, of those within the image, that lie within the mask or a pixel beside it.
        joints_seen: Number of joints within the image.
    """

    coverage: Float[Tensor, "frames"]
    inside: Float[Tensor, "frames"]
    iou: Float[Tensor, "frames"]
    joints: Float[Tensor, "frames"]
    joints_seen: Float[Tensor, "frames"]


def measure(recording: Recording) -> Overlap:
    """Compare body and mask in each frame."""
    masks, body = recording.masks, silhouettes(recording)
    both = (masks & body).sum(dim=(1, 2)).float()
    mask_area, body_area = masks.sum(dim=(1, 2)).float(), body.sum(dim=(1, 2)).float()
    pixels, seen = project(recording, recording.joints)
    seen = seen & within(pixels, recording)
    wide = _dilated(masks).flatten(1)
    places = pixels.floor().long()
    width = masks.shape[2]
    flat = torch.where(seen, places[..., 1] * width + places[..., 0], 0)
    hit = wide.gather(1, flat) & seen
    count = seen.sum(dim=1).float()
    return Overlap(
        coverage=both / mask_area.clamp_min(1),
        inside=both / body_area.clamp_min(1),
        iou=both / (mask_area + body_area - both).clamp_min(1),
        joints=hit.sum(dim=1) / count.clamp_min(1),
        joints_seen=count,
    )


def silhouettes(recording: Recording) -> Bool[Tensor, "frames height width"]:
    """The body's silhouettes: its points, with the gaps between them closed."""
    pixels, seen = project(recording, recording.points)
    gap = 0.75 * recording.surface.spacing * _pixels_per_meter(recording, seen)
    reach = int(gap.ceil().clamp(1, _WIDEST_GAP))
    parts = zip(pixels.split(_CHUNK), seen.split(_CHUNK), strict=True)
    return torch.cat([_drawn(*part, recording.masks.shape[1:], reach) for part in parts])


def _pixels_per_meter(recording: Recording, seen: Bool[Tensor, "frames points"]) -> Float[Tensor, ""]:
    """Pixels of a metre at the body, in the middling frame of those that see it."""
    to_camera = recording.world_to_camera[:, 2]
    depth = (recording.points.mean(dim=1) * to_camera[:, :3]).sum(dim=-1) + to_camera[:, 3]
    return (recording.focal.mean(dim=-1) / depth.clamp_min(_NEAR) * seen.any(dim=1)).median()


def project(
    recording: Recording, points: Float[Tensor, "frames points 3"]
) -> tuple[Float[Tensor, "frames points 2"], Bool[Tensor, "frames points"]]:
    """Project points into the frames, and mark those that lie in front of the camera.

    Args:
        recording: The frames.
        points: Points in the dataset's world, metres.

    Returns:
        Their x and y, pixels of the masks, and the marks.
    """
    to_camera = recording.world_to_camera
    local = points @ to_camera[:, :3, :3].mT + to_camera[:, None, :3, 3]
    depth = local[..., 2:]
    pixels = local[..., :2] / depth.clamp_min(_NEAR) * recording.focal[:, None] + recording.center[:, None]
    return pixels.nan_to_num(-1e6).clamp(-1e6, 1e6), depth[..., 0] > _NEAR


def within(pixels: Float[Tensor, "frames points 2"], recording: Recording) -> Bool[Tensor, "frames points"]:
    """Mark the points that lie within the image.

    Args:
        pixels: Their x and y, pixels of the masks.
        recording: The frames.
    """
    return ((pixels >= 0) & (pixels < recording.image_size)).all(dim=-1)


def _drawn(
    pixels: Float[Tensor, "frames points 2"],
    seen: Bool[Tensor, "frames points"],
    size: tuple[int, int] | torch.Size,
    reach: int,
) -> Bool[Tensor, "frames height width"]:
    height, width = size[0] + 2 * reach, size[1] + 2 * reach  # what lies beside the image closes gaps at its border
    x, y = (pixels.floor().long() + reach).unbind(dim=-1)
    seen = seen & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    image = torch.zeros(len(pixels), height * width + 1, dtype=torch.bool, device=pixels.device)
    image.scatter_(1, torch.where(seen, y * width + x, height * width), True)
    image = image[:, :-1].view(-1, height, width)
    for _ in range(reach):
        image = _dilated(image)
    for _ in range(reach):
        image = ~_dilated(~image)
    return image[:, reach:-reach, reach:-reach]


def _dilated(image: Bool[Tensor, "frames height width"]) -> Bool[Tensor, "frames height width"]:
    """Widen by a pixel to all sides. PyTorch's pooling does the same, on a CPU a hundred times more slowly."""
    rows = image.clone()
    rows[:, 1:] |= image[:, :-1]
    rows[:, :-1] |= image[:, 1:]
    both = rows.clone()
    both[..., 1:] |= rows[..., :-1]
    both[..., :-1] |= rows[..., 1:]
    return both
