"""Place and size of the body in the images, fitted to the masks."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from instantavatar_ns.check.overlap import project, silhouettes
from instantavatar_ns.check.recording import Recording


def shifted_by(recording: Recording, offset: Float[Tensor, "#frames 1 3"]) -> Recording:
    """Move the body.

    Args:
        recording: Some frames.
        offset: Of all frames, or of each, metres in the dataset's world.
    """
    return replace(recording, points=recording.points + offset, joints=recording.joints + offset)


def placed_on_masks(recording: Recording) -> Recording:
    """Move the body of each frame so that its place and size in the image are the mask's."""
    rotation = recording.world_to_camera[:, :3, :3]
    local = recording.points @ rotation.mT
    middle = local.mean(dim=1)
    size = (local - middle[:, None])[..., :2].std(dim=1).norm(dim=-1)
    place, spread = _moments(recording.masks)
    focal = recording.focal.mean(dim=-1)
    depth = focal * size / spread.clamp_min(1e-3)

    def moved(place: Tensor, depth: Tensor) -> Recording:
        across = (place - recording.center) / recording.focal * depth[:, None]
        wanted = torch.cat([across, depth[:, None]], dim=-1) - recording.world_to_camera[:, :3, 3]
        return shifted_by(recording, (wanted - middle)[:, None] @ rotation)

    aim = place
    for _ in range(2):  # the middle of a silhouette is not that of the surface
        result = moved(aim, depth)
        drawn, drawn_spread = _moments(silhouettes(result))
        aim, depth = aim + place - drawn, depth * (drawn_spread / spread.clamp_min(1e-3)).clamp(0.5, 2.0)
    return moved(aim, depth)


def size_ratio(recording: Recording) -> float:
    """Size of the masks divided by that of the body's projection, in the middling frame."""
    pixels, seen = project(recording, recording.points)
    if seen.all(dim=1).float().mean() <= 0.5:
        return 1.0
    spread = _moments(recording.masks)[1]
    ratio = float((spread / pixels.std(dim=1).norm(dim=-1).clamp_min(1e-3)).median())
    for _ in range(2):
        drawn = silhouettes(replace(recording, focal=recording.focal * ratio))
        ratio *= float((spread / _moments(drawn)[1].clamp_min(1e-3)).clamp(0.5, 2.0).median())
    return ratio


def pixel_offset(recording: Recording) -> Float[Tensor, "2"]:
    """Pixels from the body's projection to the mask, in the middling frame."""
    pixels, seen = project(recording, recording.points)
    if seen.all(dim=1).float().mean() <= 0.5:
        return torch.zeros_like(recording.image_size)
    place = _moments(recording.masks)[0]
    offset = (place - pixels.mean(dim=1)).median(dim=0).values
    for _ in range(2):  # the middle of a silhouette is not that of the surface
        drawn = _moments(silhouettes(replace(recording, center=recording.center + offset)))[0]
        offset = offset + (place - drawn).median(dim=0).values
    return offset


def _moments(
    images: Bool[Tensor, "frames height width"],
) -> tuple[Float[Tensor, "frames 2"], Float[Tensor, "frames"]]:
    """Centre and spread of silhouettes, pixels."""
    weights = images.float()
    area = weights.sum(dim=(1, 2)).clamp_min(1)
    centers, variance = [], torch.zeros_like(area)
    for axis in (1, 2):  # sums of columns, then of rows
        along = weights.sum(dim=axis)
        places = torch.arange(along.shape[1], device=along.device) + 0.5
        centers.append(along @ places / area)
        variance = variance + along @ places**2 / area - centers[-1] ** 2
    return torch.stack(centers, dim=-1), variance.clamp_min(0).sqrt()
