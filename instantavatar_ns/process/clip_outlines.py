"""Points of the body's outlines in the frames of a clip, and how far they are from the person's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.correction.silhouettes import Outline, Silhouettes, inner_edges, match_outlines
from instantavatar_ns.correction.symmetry import PATCH
from instantavatar_ns.process.clip_body import PosedClip

_POINTS = 128  # of each frame
_FRAMES_AT_ONCE = 16  # whose meshes are held at a time


class OutlinePoints(NamedTuple):
    """Points in all frames, as many in each, and the planes that stand for the person's outline next to them.

    Attributes:
        edge: Of the mesh, on whose middle a point lies.
        slope: Unit normal of the plane, in the camera's axes; zero where a frame has no points.
        offset: Distance of the camera to the person's outline along it, metres.
        patches: How many patches of cloth each point stands for.
    """

    edge: Int[Tensor, "frames points"]
    slope: Float[Tensor, "frames points 3"]
    offset: Float[Tensor, "frames points"]
    patches: Float[Tensor, "frames 1"]


class ClipOutlines:
    """Matches outlines, and measures the distances between those that were matched.

    Args:
        body: The body.
        silhouettes: Of the person, in cameras at the origin.
    """

    def __init__(self, body: BodyModel, silhouettes: Silhouettes) -> None:
        self.body, self.silhouettes = body, silhouettes
        self.edges, self.sides = inner_edges(body.faces)

    @torch.no_grad()
    def match(self, clip: PosedClip, reach: float) -> OutlinePoints:
        """Find points of the body's outlines that have the person's nearby.

        Args:
            clip: The posed body.
            reach: Metres within which an outline belongs to another.
        """
        rest, frames = self.body.rest(clip.betas)[0], len(clip.transl)
        rows = []
        for first in range(0, frames, _FRAMES_AT_ONCE):
            some = slice(first, min(first + _FRAMES_AT_ONCE, frames))
            vertices = skinned(rest, self.body.skinning_weights, clip.seen[some])
            outline = match_outlines(
                vertices, self.body.faces, self.edges, self.sides, self.silhouettes.of(some), reach
            )
            rows.extend(self._spread(outline, frame) for frame in range(some.stop - first))
        return OutlinePoints(*(torch.stack(values) for values in zip(*rows, strict=True)))

    @staticmethod
    def _spread(outline: Outline, frame: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Choose points of a frame, spread evenly along the outline."""
        own = (outline.frame == frame).nonzero()[:, 0]
        if len(own) == 0:
            zero = outline.point.new_zeros
            return own.new_zeros(_POINTS), zero(_POINTS, 3), zero(_POINTS), zero(1)
        along = outline.length[own].cumsum(dim=0)
        steps = (torch.arange(_POINTS, device=along.device) + 0.5) / _POINTS
        chosen = own[torch.searchsorted(along / along[-1], steps).clamp_max(len(own) - 1)]
        slope = outline.slope[chosen]
        offset = outline.distance[chosen] - (outline.point[chosen] * slope).sum(dim=-1)
        return outline.edge[chosen], slope, offset, along[-1:] / (PATCH * _POINTS)

    def distances(self, clip: PosedClip, points: OutlinePoints) -> Float[Tensor, "frames points"]:
        """Distances of the points to the person's outline, metres, negative within; differentiable."""
        corners = self.edges[points.edge].flatten(1)
        smpl = self.body.smpl
        rest = smpl.v_template[corners] + smpl.shapedirs[corners] @ clip.betas
        posed = skinned(rest, self.body.skinning_weights[corners], clip.seen)
        middle = posed.unflatten(1, (-1, 2)).mean(dim=2)
        return (middle * points.slope).sum(dim=-1) + points.offset
