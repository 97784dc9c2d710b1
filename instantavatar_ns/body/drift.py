"""How far an avatar's limbs are turned against the body they belong to.

Training sees images only. Where every given pose turns a joint by the same small angle too far, the canonical shape
settles turned back by that angle, and all training images look right; in any pose that comes from elsewhere, the limb
is off by it. The body model tells: clothes stand off from a limb to all its sides, so a limb whose surface is farther
from the body's on one side than on the other is turned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from instantavatar_ns.body.body_model import NUM_JOINTS, BodyModel, rotation_matrices
from instantavatar_ns.body.canonical import canonical_body_pose
from instantavatar_ns.body.kinematics import skinning_transforms

# Metres outside and inside the body between which its surface is looked for, and the steps of the search.
_OUTSIDE, _INSIDE, _STEP = 0.06, 0.03, 0.003
_OPAQUE = 0.5
# What is expected: the body's shift and the mean distance of clothes from a part of the body (metres) are normal about
# zero; distances are normal about these, and independent where they are a patch apart.
_SHIFT, _CLOTHES, _UNEVENNESS, _PATCH = 0.01, 0.05, 0.006, 0.05
# Turns are normal about zero too, radians, with the deviation that makes what was measured most probable: good poses
# drift by a tenth of what poor ones do, and clothes of a shape of their own must not turn them.
_TURNS = (0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01)
_ROBUST_ROUNDS = 5
_ENOUGH_VERTICES = 2000
_LEAST_FOUND = 0.5  # share of the surface that must be there: before, the avatar is fog

Density = Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n"]]


class DriftFinder:
    """Finds the turns of the joints that carry a body to where an avatar's surface is, in the canonical pose.

    Works on the CPU, in double precision; only densities come from elsewhere.

    Args:
        body: The person's body.
        betas: Its shape.
    """

    def __init__(self, body: BodyModel, betas: Float[Tensor, "10"]) -> None:
        vertices, normals, area = _canonical_surface(body, betas)
        some = slice(None, None, -(-len(vertices) // _ENOUGH_VERTICES))
        self._vertices, self._normals = vertices[some], normals[some]
        self._area = area[some] * (area.sum() / area[some].sum())
        parts = torch.nn.functional.one_hot(body.skinning_weights[some].argmax(dim=-1), NUM_JOINTS)
        motion = _motion_along_normals(body, betas, self._normals, some)
        self._columns = torch.cat([motion, parts.to(motion)], dim=-1)

    @torch.no_grad()
    def __call__(self, density: Density, earlier: Float[Tensor, "24 3"]) -> Float[Tensor, "24 3"]:
        """Rotation vectors, radians, by which to turn the joints in their parents' axes; none for the root.

        The most probable ones, by least squares: distances along the normals are those of clothes, one unknown number
        for each bone, plus what small turns and a shift of the whole body change. Zero while less than half of the
        surface is there.

        Args:
            density: Of canonical points, 1/metres.
            earlier: Turns that were found before and have been taken out of the poses: what is probable is their sum
                with those that are found now.
        """
        distance, found = _standoff(density, self._vertices, self._normals)
        if float((self._area * found).sum() / self._area.sum()) < _LEAST_FOUND:
            return torch.zeros_like(earlier)
        before = earlier.detach().cpu().double().flatten()
        distance = distance + self._columns[:, : 3 * NUM_JOINTS] @ before  # as if nothing had been taken out
        # Neighbouring vertices say the same: together they count as much as their patches.
        share = self._area / _PATCH**2 / _UNEVENNESS**2 * found
        weight, turns = share, before
        for _ in range(_ROBUST_ROUNDS):
            solution = max((self._solve(distance, weight, spread) for spread in _TURNS), key=lambda one: one.evidence)
            residual = (self._columns @ solution.values - distance) / _UNEVENNESS
            weight = share / (1 + residual.square())  # Cauchy's: hair, hands and what else is no cloth
            turns = solution.values[: 3 * NUM_JOINTS]
        turns = (turns - before).view(NUM_JOINTS, 3).to(earlier)
        turns[0] = 0  # where the whole body is, images tell far better
        return turns

    def _solve(self, distance: Float[Tensor, "vertices"], weight: Float[Tensor, "vertices"], turn: float) -> _Solution:
        columns = self._columns
        spread = columns.new_tensor([turn] * (3 * NUM_JOINTS) + [_SHIFT] * 3 + [_CLOTHES] * NUM_JOINTS)
        weighted = columns * weight[:, None]
        information, right = columns.T @ weighted + torch.diag(spread**-2), weighted.T @ distance
        values = torch.linalg.solve(information, right)
        # Logarithm of the probability of the distances, but for what does not depend on the spread.
        evidence = 0.5 * (right @ values - torch.logdet(information)) - spread.log().sum()
        return _Solution(values, float(evidence))


class _Solution(NamedTuple):
    """The most probable unknowns (turns, shift, clothes), and how well their expected spread explains the distances."""

    values: Float[Tensor, "unknowns"]
    evidence: float


def _canonical_surface(
    body: BodyModel, betas: Float[Tensor, "10"]
) -> tuple[Float[Tensor, "vertices 3"], Float[Tensor, "vertices 3"], Float[Tensor, "vertices"]]:
    """Vertices, their normals and the area around each, square metres."""
    vertices = _posed(body, betas, torch.zeros(NUM_JOINTS + 1, 3, dtype=torch.double))
    corners = vertices[body.faces]
    doubled = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.zeros_like(vertices)
    area = torch.zeros_like(vertices[:, 0])
    for corner in range(3):
        normals.index_add_(0, body.faces[:, corner], doubled)
        area.index_add_(0, body.faces[:, corner], doubled.norm(dim=-1) / 6)
    return vertices, torch.nn.functional.normalize(normals, dim=-1), area


def _posed(
    body: BodyModel, betas: Float[Tensor, "10"], turns: Float[Tensor, "25 3"], some: slice = slice(None)
) -> Float[Tensor, "some 3"]:
    """Vertices of the body in the canonical pose, its joints turned in their parents' axes and shifted."""
    rest, joints = (value.double() for value in body.rest(betas.cpu()))
    axis_angle = torch.cat([torch.zeros(3), canonical_body_pose()]).view(NUM_JOINTS, 3).double()
    rotations = rotation_matrices(turns[:-1]) @ rotation_matrices(axis_angle)
    transforms = skinning_transforms(rotations[None], turns[None, -1], joints, body.ancestors)[0, :, :3]
    blended = torch.einsum("vj,jrc->vrc", body.skinning_weights[some].double(), transforms)
    return torch.einsum("vrc,vc->vr", blended[..., :3], rest[some]) + blended[..., 3]


def _motion_along_normals(
    body: BodyModel, betas: Float[Tensor, "10"], normals: Float[Tensor, "some 3"], some: slice
) -> Float[Tensor, "some 75"]:
    """Metres per radian of each turn, and per metre of the shift."""
    still = torch.zeros(NUM_JOINTS + 1, 3, dtype=torch.double)
    motion = torch.func.jacfwd(lambda turns: _posed(body, betas, turns, some))(still)
    return torch.einsum("vr,vrk->vk", normals, motion.flatten(2))


def _standoff(
    density: Density, vertices: Float[Tensor, "vertices 3"], normals: Float[Tensor, "vertices 3"]
) -> tuple[Float[Tensor, "vertices"], Bool[Tensor, "vertices"]]:
    """Distance of the avatar's surface from the body's vertices along their normals, metres, and where there is one.

    The surface is where a ray that comes in along the normal has been half stopped.
    """
    offsets = torch.arange(_OUTSIDE, -_INSIDE, -_STEP, dtype=vertices.dtype)
    points = vertices[:, None] + offsets[:, None] * normals[:, None]
    thickness = density(points.flatten(0, 1).float()).view(points.shape[:2]).to(vertices) * _STEP
    stopped = 1 - torch.exp(-thickness.cumsum(dim=1))
    place = (stopped < _OPAQUE).sum(dim=1)
    # Not what is dense already where the ray begins, which is another part of the body, or never.
    found = (place > 1) & (place < len(offsets))
    place = place.clamp(1, len(offsets) - 1)[:, None]
    before, after = stopped.gather(1, place - 1)[:, 0], stopped.gather(1, place)[:, 0]
    share = (_OPAQUE - before) / (after - before).clamp_min(1e-6)
    return offsets[place[:, 0]] + (0.5 - share) * _STEP, found
