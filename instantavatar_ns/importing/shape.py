"""The person's shape with the body in use, where that is not the one that the poses were estimated with.

Rotations carry over from body to body; betas do not, and neither does the translation, which is that of the rest pose's
origin, and the pelvis, about which the body turns, lies elsewhere in the trunk. Of all frames together, ten betas, a
shift in the world and one that turns with the trunk are found by Gauss-Newton, so that the body's outlines lie within
the person's by the thickness of clothes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.body.model import BodyModel, rotation_matrices
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.body.smpl import NUM_BETAS
from instantavatar_ns.correction.silhouettes import Silhouettes, inner_edges, match_outlines

_ROUNDS = (0.20, 0.15, 0.10, 0.08, 0.06, 0.05, 0.05, 0.05)
"""Metres within which outlines belong to each other, in each round."""
_CLOTHES, _SPREAD = 0.01, 0.015
"""Thickness of clothes and its deviation, metres. Outlines that fit worse count less."""
_PATCH, _FRAMES = 0.10, 2.0
"""Metres of an outline that say something of their own, and as how many frames all of them count together."""
_BETA, _SHIFT, _PELVIS = 1.0, 0.03, 0.04
"""Deviations that are expected of a coefficient, of the shift, and of the pelvis in the trunk, metres."""
_HEIGHTS, _FARTHEST_SHIFT = (1.3, 2.1), 0.1
"""Metres between which people are tall, and by which bodies of two tools lie apart at most."""
_STEP = 0.25
"""Of a coefficient, for its derivative; vertices are linear in it."""


@dataclass(frozen=True)
class ShapeFit:
    """A shape that fits, and how well.

    Attributes:
        betas: The shape.
        shift: What is to be added to all translations, metres.
        pelvis: What is to be added to them in the axes of the trunk, metres.
        distance: Median distance between the outlines, metres, before and after.
    """

    betas: Float[Tensor, "10"]
    shift: Float[Tensor, "3"]
    pelvis: Float[Tensor, "3"]
    distance: tuple[float, float]

    def applied(self, poses: PoseSequence) -> PoseSequence:
        """Poses of any frames with this shape."""
        trunk = rotation_matrices(poses.global_orient)
        return replace(poses, betas=self.betas, transl=poses.transl + self.shift + trunk @ self.pelvis)

    def oddity(self, body: BodyModel) -> str:
        """A finding that no person's shape explains, to follow "found"; empty where there is none."""
        up = body.rest(self.betas)[0][:, 1]
        height = float(up.max() - up.min())
        if not _HEIGHTS[0] <= height <= _HEIGHTS[1]:
            return f"that the masks ask for a person who is {height:.2f} m tall"
        if float(self.shift.norm()) > _FARTHEST_SHIFT:
            return f"that the masks ask for a shift of {1000 * float(self.shift.norm()):.0f} mm"
        return ""


def fit_shape(body: BodyModel, poses: PoseSequence, silhouettes: Silhouettes) -> ShapeFit:
    """Fit betas and one shift of all translations.

    Args:
        body: The body in use.
        poses: Poses in the cameras' world; their betas are where the search begins.
        silhouettes: Of the person in the same frames.
    """
    edges, sides = inner_edges(body.faces)
    spread = torch.tensor([_BETA] * NUM_BETAS + [_SHIFT] * 3 + [_PELVIS] * 3)
    precision = torch.diag(spread.double() ** -2)
    unknowns = torch.cat([poses.betas.double(), torch.zeros(6).double()])
    distances = []
    for reach in _ROUNDS:
        matrix, right, distance = _equations(body, poses, unknowns, silhouettes, (edges, sides), reach)
        distances.append(distance)
        unknowns = unknowns + torch.linalg.solve(matrix + precision, right - precision @ unknowns)
    return _fit(unknowns, (distances[0], distances[-1]))


def _fit(unknowns: Float[Tensor, "16"], distance: tuple[float, float]) -> ShapeFit:
    betas, shift, pelvis = unknowns.float().split([NUM_BETAS, 3, 3])
    return ShapeFit(betas, shift, pelvis, distance)


def _equations(
    body: BodyModel,
    poses: PoseSequence,
    unknowns: Float[Tensor, "16"],
    silhouettes: Silhouettes,
    mesh: tuple[Tensor, Tensor],
    reach: float,
) -> tuple[Float[Tensor, "16 16"], Float[Tensor, "16"], float]:
    """Normal equations of the outlines' distances around some unknowns, and the median distance."""
    edges, sides = mesh
    current = _fit(unknowns, (0.0, 0.0)).applied(poses)
    vertices = body.vertices(current.betas, current.global_orient, current.body_pose, current.transl)
    outline = match_outlines(vertices, body.faces, edges, sides, silhouettes, reach)
    middles = partial(_middles, body, current, outline.frame, edges[outline.edge])
    start, columns = middles(current.betas), []
    for index in range(NUM_BETAS):
        betas = current.betas.clone()
        betas[index] += _STEP
        columns.append(((middles(betas) - start) / _STEP * outline.slope).sum(dim=-1))
    trunk = rotation_matrices(current.global_orient)[outline.frame]
    of_pelvis = (outline.slope[:, None] @ trunk)[:, 0]
    jacobian = torch.cat([torch.stack(columns, dim=1), outline.slope, of_pelvis], dim=1).double()
    residual = (outline.distance + _CLOTHES).double()
    weight = outline.length.double() / _PATCH / _SPREAD**2 / (1 + (residual / (2 * _SPREAD)).square())
    # Frames say much the same, and what no shape of the body can be is the same in all of them.
    weight = weight * min(1.0, _FRAMES / len(poses))
    weighted = jacobian * weight[:, None]
    distance = float(residual.abs().median()) if len(residual) else float("inf")
    return weighted.T @ jacobian, -weighted.T @ residual, distance


def _middles(
    body: BodyModel,
    poses: PoseSequence,
    frame: Int[Tensor, "points"],
    ends: Int[Tensor, "points 2"],
    betas: Float[Tensor, "10"],
) -> Float[Tensor, "points 3"]:
    """Middles of edges in some frames, with another shape; pose-dependent offsets are left out."""
    transforms = body.transforms(betas, poses.global_orient, poses.body_pose, poses.transl)[frame]
    rest = body.rest(betas)[0][ends]
    return skinned(rest, body.skinning_weights[ends], transforms).mean(dim=1)
