"""Poses that make the body fill the person's silhouettes, before there is an avatar.

An avatar that is trained in wrong poses agrees with them: images then tell little of what is wrong. The body model's
shape is known beforehand. Its outline in a frame must lie inside the person's by the thickness of clothes, the same for
a patch of the body in all frames; errors of poses change slowly or jitter, and motion is steadier than both. The
person's joints are not quite where the body's are, which no turn should make up for. People, and mostly their clothes,
are symmetric. The corrections that do this best are found by Gauss-Newton over all frames together. What turns towards
the camera and away from it is found where outlines show it; elsewhere a pose stays as given, but for what makes it
steady.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from instantavatar_ns.body.body_model import NUM_JOINTS, BodyModel, rotation_matrices
from instantavatar_ns.body.kinematics import skinned, skinning_transforms
from instantavatar_ns.body.motion_prior import Assumption, KnotPrior, MotionPrior, gaussian, matern52
from instantavatar_ns.body.silhouettes import Silhouettes, inner_edges, match_outlines
from instantavatar_ns.body.symmetry import PATCH, joint_prior, patches

_ROUNDS = 8
_COARSE_ROUNDS, _COARSE_REACH, _REACH = 3, 0.08, 0.03  # metres within which an outline belongs to another
# What is expected, in metres: clothes are so thick, give or take, and differ so much from one patch of the body to the
# next. Outlines are normal about that, and independent where they are a patch apart.
_CLOTHES, _CLOTHES_IN_COMMON, _CLOTHES_SPREAD, _UNEVENNESS = 0.01, 0.002, 0.004, 0.007
# Deviations of smooth errors and of each frame's own, radians, and frames over which motion is smooth. Those are taken
# that make silhouettes and given poses most probable: poses can be exact, tenths of a degree off as those of a good
# fit, degrees as those of an estimator, or jitter; people stand, sway or dance. A length of one frame expects nothing.
_SPREADS = (0.0001, 0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.011, 0.015, 0.022, 0.03, 0.045)
_JITTERS = (0.001, 0.003, 0.01, 0.03)
_LENGTHS: dict[Callable[[Tensor], Tensor], tuple[float, ...]] = {
    matern52: (1.0, 5.0, 10.0, 20.0, 40.0, 80.0),
    gaussian: (20.0, 28.0, 40.0),
}
_FIRST = Assumption(0.03, 0.01, matern52, 10.0)
_OF_POSE, _OF_JOINTS = 3 * NUM_JOINTS + 3, 3 * NUM_JOINTS  # unknowns of a knot, and of the person's joints


class Alignment(NamedTuple):
    """Corrections of poses.

    Attributes:
        knots: Of splines over time: rotation vectors in the parents' axes, radians, and a shift, metres.
        remainders: Of each frame, the same beside the splines.
        spread: Deviation of the given rotations' smooth errors that was found likely, radians.
        joint_offsets: From the body's joints to the person's, in the T-pose, metres.
    """

    knots: Float[Tensor, "knots 25 3"]
    remainders: Float[Tensor, "frames 25 3"]
    spread: float
    joint_offsets: Float[Tensor, "24 3"]


@torch.no_grad()
def align_to_silhouettes(
    body: BodyModel,
    betas: Float[Tensor, "10"],
    rotations: Float[Tensor, "frames 24 3 3"],
    transl: Float[Tensor, "frames 3"],
    times: Float[Tensor, "frames"],
    basis: Float[Tensor, "frames knots"],
    silhouettes: Silhouettes,
) -> Alignment:
    """Corrections of poses: splines over time, and of each frame's own what looks like jitter beside them.

    Where the body is on the average, in the world and in its own axes, is left as it was given: clothes and hair that
    stand off to one side would move it.

    Args:
        body: The person's body, on the device that computes.
        betas: Its shape.
        rotations: Of the joints relative to their parents, as given.
        transl: Of the body in the dataset's world, metres, as given.
        times: Of the frames, ascending, in frames of the recording.
        basis: Weight of each knot in each frame.
        silhouettes: What to fill.
    """
    problem = _Problem(body, betas, rotations, transl, basis, silhouettes)
    prior = MotionPrior(rotations, transl, times, basis)
    unknowns, assumed = problem.start(), _FIRST
    # One silhouette alone does not tell a lean from thin clothes: its pose stays as it is.
    for number in range(_ROUNDS if len(rotations) > 1 else 0):
        equations = problem.linearise(unknowns, _COARSE_REACH if number < _COARSE_ROUNDS else _REACH)
        if number == _COARSE_ROUNDS - 1:
            assumed = _most_probable(problem, equations, prior)
        unknowns = problem.solve(equations, prior.of_knots(assumed)).unknowns
    knots = problem.knots(unknowns)
    remainders = prior.of_frames(knots, assumed)
    knots[:, -1] = _in_place(knots[:, -1], problem.basis, problem.rotations[:, 0])
    return Alignment(knots, remainders, assumed.spread, problem.joint_offsets(unknowns))


def _most_probable(problem: _Problem, equations: _Equations, prior: MotionPrior) -> Assumption:
    """The highest of what lies uphill, one summit for each kind of motion."""

    @cache
    def evidence(assumed: Assumption) -> float:
        return problem.solve(equations, prior.of_knots(assumed)).evidence

    return max((_uphill(evidence, correlation) for correlation in _LENGTHS), key=evidence)


def _uphill(evidence: Callable[[Assumption], float], correlation: Callable[[Tensor], Tensor]) -> Assumption:
    """By neighbours on the grid of spreads, jitters and lengths, from the first errors and the lengths' middle."""
    axes = _SPREADS, _JITTERS, _LENGTHS[correlation]

    def at(place: tuple[int, ...]) -> Assumption:
        spread, jitter, length = (values[index] for values, index in zip(axes, place, strict=True))
        return Assumption(spread, jitter, correlation, length)

    place = _SPREADS.index(_FIRST.spread), _JITTERS.index(_FIRST.jitter), len(axes[-1]) // 2
    best = None
    while place != best:
        best = place
        near = (range(max(index - 1, 0), min(index + 2, len(values))) for index, values in zip(best, axes, strict=True))
        place = max(product(*near), key=lambda other: evidence(at(other)))
    return at(place)


def _in_place(
    shift: Float[Tensor, "knots 3"], basis: Float[Tensor, "frames knots"], root: Float[Tensor, "frames 3 3"]
) -> Float[Tensor, "knots 3"]:
    """The same shifts, less what all frames have in common, in the root's axes and in the world's."""
    frames = basis @ shift
    frames = frames - root @ torch.einsum("frc,fr->fc", root, frames).mean(dim=0)
    return torch.linalg.pinv(basis) @ (frames - frames.mean(dim=0))


class _Equations(NamedTuple):
    """Normal equations of the distances, linear in the unknowns: `matrix @ unknowns = right`."""

    matrix: Float[Tensor, "unknowns unknowns"]
    right: Float[Tensor, "unknowns"]


class _Solution(NamedTuple):
    """The most probable unknowns, and how well what was expected of them explains distances and given poses."""

    unknowns: Float[Tensor, "unknowns"]
    evidence: float


class _Problem:
    """Unknowns: the knots [knots, 75], from the body's joints to the person's [24, 3], clothes on each patch."""

    def __init__(
        self,
        body: BodyModel,
        betas: Float[Tensor, "10"],
        rotations: Float[Tensor, "frames 24 3 3"],
        transl: Float[Tensor, "frames 3"],
        basis: Float[Tensor, "frames knots"],
        silhouettes: Silhouettes,
    ) -> None:
        self.rotations, self.transl, self.basis, self.silhouettes = rotations, transl, basis, silhouettes
        self.rest, self.joints = body.rest(betas)
        self.weights, self.faces, self.ancestors = body.skinning_weights, body.faces, body.ancestors
        self.parents = body.parents.tolist()
        follows = torch.eye(NUM_JOINTS)  # whether a bone (column) hangs on a joint (row)
        for joint in range(NUM_JOINTS - 1, 0, -1):
            follows[self.parents[joint]] += follows[joint]
        self.share = self.weights @ follows.T.to(self.weights)  # of a vertex that a joint's turn takes along
        self.patch = patches(self.rest, self.weights, self.joints)
        self.num_patches = int(self.patch.max()) + 1
        # The inverse covariance of clothes that have some thickness in common, and a difference on each patch.
        of_patch = _CLOTHES_SPREAD**-2
        in_common = of_patch**2 / (_CLOTHES_IN_COMMON**-2 + self.num_patches * of_patch)
        self.clothes_information = of_patch * torch.eye(self.num_patches).to(basis).double() - in_common
        self.joint_information, self.joint_pull = (part.double() for part in joint_prior(self.joints))
        self.edges, self.sides = inner_edges(body.faces)

    def start(self) -> Float[Tensor, "unknowns"]:
        clothes = self.basis.new_full((self.num_patches,), _CLOTHES)
        return torch.cat([self.basis.new_zeros(self.basis.shape[1] * _OF_POSE + _OF_JOINTS), clothes]).double()

    def knots(self, unknowns: Float[Tensor, "unknowns"]) -> Float[Tensor, "knots 25 3"]:
        return unknowns[: self.basis.shape[1] * _OF_POSE].view(-1, NUM_JOINTS + 1, 3).to(self.basis, copy=True)

    def joint_offsets(self, unknowns: Float[Tensor, "unknowns"]) -> Float[Tensor, "24 3"]:
        return unknowns[-_OF_JOINTS - self.num_patches : -self.num_patches].view(-1, 3).to(self.basis, copy=True)

    def linearise(self, unknowns: Float[Tensor, "unknowns"], reach: float) -> _Equations:
        """Distances between the outlines around some unknowns.

        Args:
            unknowns: Where to linearise.
            reach: Metres within which outlines belong to each other.
        """
        correction = torch.einsum("fk,kjr->fjr", self.basis, self.knots(unknowns))
        offset, clothes = self.joint_offsets(unknowns), unknowns[-self.num_patches :].to(self.basis)
        joints = self.joints + offset
        rotations = rotation_matrices(correction[:, :-1]) @ self.rotations
        transforms = skinning_transforms(rotations, self.transl + correction[:, -1], joints, self.ancestors)
        vertices = skinned(self.rest, self.weights, transforms)
        outline = match_outlines(vertices, self.faces, self.edges, self.sides, self.silhouettes, reach)
        frame, edge = outline.frame, outline.edge

        turned = transforms[..., :3, :3]
        posed_joints = torch.einsum("fjrc,jc->fjr", turned, joints) + transforms[..., :3, 3]
        identity = torch.eye(3).to(turned).expand(len(turned), 1, 3, 3)
        axes = torch.cat([identity, turned[:, self.parents[1:]]], dim=1)  # the parents'
        share = self.share[self.edges[edge]].mean(dim=1)[..., None]
        arm = outline.point[:, None] - posed_joints[frame]
        torque = torch.linalg.cross(arm, outline.slope[:, None].expand_as(arm)) * share
        by_turns = torch.einsum("njrc,njr->njc", axes[frame], torque)
        # What turns about another joint lies elsewhere by its way there and back. The root's would only shift the body.
        way = torch.cat([torch.zeros_like(axes[:, :1]), (axes - turned)[:, 1:]], dim=1)
        by_joints = torch.einsum("njrc,nr->njc", way[frame], outline.slope) * share
        columns = torch.cat([by_turns, outline.slope[:, None], by_joints], dim=1).flatten(1)
        patch = self.patch[self.edges[edge, 0]]
        # The distances where all unknowns are zero, were they linear. Clothes fill them: the sum of both is zero.
        current = torch.cat([correction.flatten(1), offset.flatten().expand(len(correction), -1)], dim=1)
        at_zero = outline.distance - (columns * current[frame]).sum(dim=1)
        residual = outline.distance + clothes[patch]
        # Neighbouring points say the same, in neighbouring frames too: together they count as much as their patches,
        # seen once a knot. Cauchy's weights: hair and hands are no cloth.
        several = outline.length / PATCH * (self.basis.shape[1] / self.basis.shape[0])
        weight = several / _UNEVENNESS**2 / (1 + (residual / (2 * _UNEVENNESS)).square())
        return self._equations(columns, patch, at_zero, weight, frame)

    def _equations(
        self,
        columns: Float[Tensor, "points 147"],
        patch: Int[Tensor, "points"],
        distance: Float[Tensor, "points"],
        weight: Float[Tensor, "points"],
        frame: Int[Tensor, "points"],
    ) -> _Equations:
        """Sum the frames' normal equations, those of poses spread over the knots.

        Args:
            columns: Derivatives of the distances by the frames' poses and the joints' places.
            patch: Whose clothes add to the distance.
            distance: Where all unknowns are zero.
            weight: Inverse of the variance.
            frame: In ascending order.
        """
        frames, size = len(self.basis), self.basis.shape[1] * _OF_POSE
        weighted = columns * weight[:, None]
        counts = torch.bincount(frame, minlength=frames).tolist()  # the host may wait: nothing is trained yet
        pairs = zip(columns.split(counts), weighted.split(counts), strict=True)
        matrix = torch.stack([one.T @ other for one, other in pairs])
        with_clothes = columns.new_zeros(frames, self.num_patches, columns.shape[1])
        with_clothes.index_put_((frame, patch), weighted, accumulate=True)
        of_clothes = columns.new_zeros(self.num_patches).index_add_(0, patch, weight)
        pull = columns.new_zeros(frames, columns.shape[1]).index_add_(0, frame, weighted * distance[:, None])
        pull_of_clothes = columns.new_zeros(self.num_patches).index_add_(0, patch, weight * distance)

        # What is solved is badly conditioned.
        matrix, with_clothes, pull, basis = matrix.double(), with_clothes.double(), pull.double(), self.basis.double()
        pose, joints = slice(_OF_POSE), slice(_OF_POSE, None)
        by_knots = torch.einsum("fa,fb,fij->aibj", basis, basis, matrix[:, pose, pose]).reshape(size, size)
        knots_joints = torch.einsum("fa,fij->aij", basis, matrix[:, pose, joints]).reshape(size, _OF_JOINTS)
        knots_clothes = torch.einsum("fa,fpi->aip", basis, with_clothes[..., pose]).reshape(size, self.num_patches)
        by_joints, joints_clothes = matrix[:, joints, joints].sum(dim=0), with_clothes[..., joints].sum(dim=0).T
        rows = (
            (by_knots, knots_joints, knots_clothes),
            (knots_joints.T, by_joints, joints_clothes),
            (knots_clothes.T, joints_clothes.T, torch.diag(of_clothes.double())),
        )
        right = torch.einsum("fa,fi->ai", basis, pull[:, pose]).flatten(), pull[:, joints].sum(dim=0)
        return _Equations(
            torch.cat([torch.cat(row, dim=1) for row in rows]), -torch.cat([*right, pull_of_clothes.double()])
        )

    def solve(self, equations: _Equations, prior: KnotPrior) -> _Solution:
        """The most probable unknowns.

        Args:
            equations: Of the distances.
            prior: Of the knots.
        """
        information, right = equations.matrix.clone(), equations.right.clone()
        size = self.basis.shape[1] * _OF_POSE
        blocks = information[:size, :size].view(-1, NUM_JOINTS + 1, 3, self.basis.shape[1], NUM_JOINTS + 1, 3)
        blocks.diagonal(dim1=1, dim2=4).diagonal(dim1=1, dim2=3).add_(prior.information.permute(1, 2, 0)[..., None])
        right[:size] += prior.pull.flatten()
        joints = slice(size, size + _OF_JOINTS)
        information[joints, joints] += self.joint_information
        right[joints] += self.joint_pull
        information[-self.num_patches :, -self.num_patches :] += self.clothes_information
        right[-self.num_patches :] += _CLOTHES * self.clothes_information.sum(dim=1)
        factor = torch.linalg.cholesky(information)
        unknowns = torch.cholesky_solve(right[:, None], factor)[:, 0]
        # Logarithm of the probability of distances and given poses, but for what no prior changes.
        evidence = 0.5 * right @ unknowns - factor.diagonal().log().sum() + prior.log_probability
        return _Solution(unknowns, float(evidence))
