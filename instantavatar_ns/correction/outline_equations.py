"""Normal equations of the distances between the body's outlines and the person's, and their solution.

Unknown are the knots of the corrections over time, and what all frames share: where the person's joints are, and how
thick clothes are on each patch of the body. Each window over time (`correction/windows.py`) has knots of its own; the
shared unknowns are all that connects them. So the matrix is block-diagonal with a border, and its Cholesky factor, too:
work and memory grow linearly with the windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.body.kinematics import skinned, skinning_transforms
from instantavatar_ns.body.model import NUM_JOINTS, BodyModel, rotation_matrices
from instantavatar_ns.correction.motion_prior import KnotPrior
from instantavatar_ns.correction.silhouettes import Silhouettes, inner_edges, match_outlines
from instantavatar_ns.correction.symmetry import PATCH, joint_prior, patches
from instantavatar_ns.correction.windows import Span

# Expected, in metres: clothes are so thick, give or take, and differ so much from one patch of the body to the next.
# Outlines are normal about that, and independent where they are a patch apart.
_CLOTHES, _CLOTHES_IN_COMMON, _CLOTHES_SPREAD, _UNEVENNESS = 0.01, 0.002, 0.004, 0.007
_OF_POSE, _OF_JOINTS = 3 * NUM_JOINTS + 3, 3 * NUM_JOINTS  # unknowns of a knot, and of the person's joints
_FRAMES_AT_ONCE = 16  # whose meshes are held at a time


class Unknowns(NamedTuple):
    """Solution of the equations, double precision.

    Attributes:
        knots: Of the corrections: rotation vectors in the parents' axes, radians, and a shift, metres.
        joint_offsets: From the body's joints to the person's, in the T-pose, metres.
        clothes: Thickness on each patch, metres.
    """

    knots: Float[Tensor, "knots 25 3"]
    joint_offsets: Float[Tensor, "24 3"]
    clothes: Float[Tensor, "patches"]


class Observations(NamedTuple):
    """Rotations and translations that were given for some frames, and the silhouettes seen in them.

    Attributes:
        rotations: Of the joints relative to their parents.
        transl: Of the body in the dataset's world, metres.
        basis: Weight in each frame of the knots that have any.
        silhouettes: Of the person.
    """

    rotations: Float[Tensor, "frames 24 3 3"]
    transl: Float[Tensor, "frames 3"]
    basis: Float[Tensor, "frames knots"]
    silhouettes: Silhouettes

    def of(self, frames: slice) -> Observations:
        """Select frames."""
        rotations, transl, basis, silhouettes = self
        return Observations(rotations[frames], transl[frames], basis[frames], silhouettes.of(frames))


class Equations(NamedTuple):
    """Normal equations of some frames, linear in their knots and in what all frames share.

    Attributes:
        matrix: Of the knots.
        border: Between the knots and what is shared.
        corner: Of what is shared.
        right: Right-hand side, of the knots.
        right_shared: The same of what is shared.
    """

    matrix: Float[Tensor, "unknowns unknowns"]
    border: Float[Tensor, "unknowns shared"]
    corner: Float[Tensor, "shared shared"]
    right: Float[Tensor, "unknowns"]
    right_shared: Float[Tensor, "shared"]


class Solution(NamedTuple):
    """Most probable unknowns, and how well the priors explain the distances and the given poses.

    Attributes:
        knots: Of each window.
        joint_offsets: See `Unknowns`.
        clothes: See `Unknowns`.
        evidence: Logarithm of the probability of distances and given poses, but for what no prior changes.
    """

    knots: list[Float[Tensor, "knots 25 3"]]
    joint_offsets: Float[Tensor, "24 3"]
    clothes: Float[Tensor, "patches"]
    evidence: float


class OutlineEquations:
    """Linearise and solve for one person.

    Args:
        body: The person's body, on the device that computes.
        betas: Its shape.
        knots_a_frame: Knots of the whole recording by its frames, at most 1: the weight of a frame's points.
    """

    def __init__(self, body: BodyModel, betas: Float[Tensor, "10"], knots_a_frame: float) -> None:
        self.knots_a_frame = knots_a_frame
        self.rest, self.joints = body.rest(betas)
        self.weights, self.faces, self.ancestors = body.skinning_weights, body.faces, body.ancestors
        self.parents = body.parents.tolist()
        self.edges, self.sides = inner_edges(body.faces)
        follows = torch.eye(NUM_JOINTS)  # whether a bone (column) hangs on a joint (row)
        for joint in range(NUM_JOINTS - 1, 0, -1):
            follows[self.parents[joint]] += follows[joint]
        # How much of an edge moves along with each joint's turn, with the shift, with each joint's place.
        share = (self.weights @ follows.T.to(self.weights))[self.edges].mean(dim=1)
        self.share = torch.cat([share, torch.ones_like(share[:, :1]), share], dim=1)
        patch = patches(self.rest, self.weights, self.joints)
        self.num_patches = int(patch.max()) + 1
        self.patch = patch[self.edges[:, 0]]
        # The inverse covariance of clothes that have some thickness in common, and a difference on each patch.
        of_patch = _CLOTHES_SPREAD**-2
        in_common = of_patch**2 / (_CLOTHES_IN_COMMON**-2 + self.num_patches * of_patch)
        of_clothes = of_patch * torch.eye(self.num_patches).to(self.rest).double() - in_common
        of_joints, pull = (part.double() for part in joint_prior(self.joints))
        self.precision = torch.block_diag(of_joints, of_clothes)
        self.pull = torch.cat([pull, _CLOTHES * of_clothes.sum(dim=1)])

    def start(self, num_knots: int) -> Unknowns:
        """Return given poses, the body's joints, and clothes as thick as is expected."""
        zeros = self.pull.new_zeros
        return Unknowns(
            zeros(num_knots, NUM_JOINTS + 1, 3), zeros(NUM_JOINTS, 3), zeros(self.num_patches).fill_(_CLOTHES)
        )

    def linearise(self, observed: Observations, unknowns: Unknowns, reach: float) -> Equations:
        """Return equations of the distances in some frames around some unknowns.

        Args:
            observed: What is given and seen in the frames.
            unknowns: Where to linearise; knots that have weight in these frames.
            reach: Metres within which outlines belong to each other.
        """
        (frames, knots), parts = observed.basis.shape, []
        for first in range(0, frames, _FRAMES_AT_ONCE):
            some = observed.of(slice(first, first + _FRAMES_AT_ONCE))
            parts.extend(self._of_frames(some, unknowns, reach))
        # What is solved is badly conditioned.
        basis, size = observed.basis.double(), knots * _OF_POSE
        matrix, with_clothes, of_clothes, pull, pull_clothes = (
            torch.stack(part).double() for part in zip(*parts, strict=True)
        )
        pose, joints = slice(_OF_POSE), slice(_OF_POSE, None)
        pairs = torch.einsum("fa,fb->abf", basis, basis).reshape(knots * knots, frames)
        by_knots = (pairs @ matrix[:, pose, pose].flatten(1)).view(knots, knots, _OF_POSE, _OF_POSE)
        with_joints = (basis.T @ matrix[:, pose, joints].flatten(1)).view(size, _OF_JOINTS)
        with_patches = (basis.T @ with_clothes[..., pose].flatten(1)).view(knots, self.num_patches, _OF_POSE)
        joints_clothes = with_clothes[..., joints].sum(dim=0).T
        corner = torch.cat(
            [
                torch.cat([matrix[:, joints, joints].sum(dim=0), joints_clothes], dim=1),
                torch.cat([joints_clothes.T, torch.diag(of_clothes.sum(dim=0))], dim=1),
            ]
        )
        return Equations(
            by_knots.transpose(1, 2).reshape(size, size),
            torch.cat([with_joints, with_patches.mT.reshape(size, self.num_patches)], dim=1),
            corner,
            -(basis.T @ pull[:, pose]).flatten(),
            -torch.cat([pull[:, joints].sum(dim=0), pull_clothes.sum(dim=0)]),
        )

    def _of_frames(self, observed: Observations, unknowns: Unknowns, reach: float) -> list[tuple[Tensor, ...]]:
        """Weighted sums over the points of each frame.

        Returns:
            Of each frame: products of the derivatives with respect to its pose and the joints with each other
            [147, 147] and with those with respect to clothes [patches, 147]; of the latter with themselves [patches],
            for a point belongs to one patch; of both with the distances where all unknowns are zero [147], [patches].
        """
        correction, offset, clothes = (
            part.to(observed.basis)
            for part in (torch.tensordot(observed.basis.double(), unknowns.knots, dims=1), *unknowns[1:])
        )
        joints = self.joints + offset
        rotations = rotation_matrices(correction[:, :-1]) @ observed.rotations
        transforms = skinning_transforms(rotations, observed.transl + correction[:, -1], joints, self.ancestors)
        vertices = skinned(self.rest, self.weights, transforms)
        outline = match_outlines(vertices, self.faces, self.edges, self.sides, observed.silhouettes, reach)
        center, derivatives = self._derivatives(transforms, joints)
        current = torch.cat([correction.flatten(1), offset.flatten().expand(len(correction), -1)], dim=1)
        # Neighbouring points say the same, in neighbouring frames too: together they count as much as their patches,
        # seen once a knot.
        several = outline.length / PATCH * self.knots_a_frame
        counts = torch.bincount(outline.frame, minlength=len(vertices)).tolist()  # nothing is trained yet: may block
        points = (outline.edge, outline.point, outline.slope, outline.distance, several)
        result = []
        for frame, some in enumerate(zip(*(values.split(counts) for values in points), strict=True)):
            edge, point, slope, distance, number = some
            screw = torch.cat([torch.linalg.cross(point - center[frame], slope), slope], dim=1)
            columns = (screw @ derivatives[frame]).unflatten(1, (-1, 3)) * self.share[edge][..., None]
            columns, patch = columns.flatten(1), self.patch[edge]
            # Clothes fill the distances: the sum of both is zero. Cauchy's weights: hair and hands are no cloth.
            residual = distance + clothes[patch]
            weight = number / _UNEVENNESS**2 / (1 + (residual / (2 * _UNEVENNESS)).square())
            weighted = columns * weight[:, None]
            at_zero = distance - columns @ current[frame]  # were they linear
            of_clothes = columns.new_zeros(2, self.num_patches)
            of_clothes.index_add_(1, patch, torch.stack([weight, weight * at_zero]))
            with_clothes = columns.new_zeros(self.num_patches, columns.shape[1]).index_add_(0, patch, weighted)
            result.append((columns.T @ weighted, with_clothes, of_clothes[0], weighted.T @ at_zero, of_clothes[1]))
        return result

    def _derivatives(
        self, transforms: Float[Tensor, "frames 24 4 4"], joints: Float[Tensor, "24 3"]
    ) -> tuple[Float[Tensor, "frames 3"], Float[Tensor, "frames 6 147"]]:
        """Return a center in each frame, and derivatives of the distance of a point that follows all joints.

        The distance's slope is a force at the point: its moment about the center and the force itself, times these,
        are the derivatives with respect to turns, shift and places of the joints. They are the same for all points.
        """
        turned = transforms[..., :3, :3]
        posed_joints = torch.einsum("fjrc,jc->fjr", turned, joints) + transforms[..., :3, 3]
        center = posed_joints[:, 0]
        identity = torch.eye(3).to(turned).expand(len(turned), 1, 3, 3)
        axes = torch.cat([identity, turned[:, self.parents[1:]]], dim=1)  # the parents'
        arm = (posed_joints - center[:, None])[..., None].expand_as(axes)
        nothing = torch.zeros_like(axes)
        # A point that turns about another joint lies elsewhere by the joint's way there and back. The root's would only
        # shift the body.
        way = torch.cat([nothing[:, :1], (axes - turned)[:, 1:]], dim=1)
        moment = torch.cat([axes, nothing[:, :1], nothing], dim=1)
        force = torch.cat([-torch.linalg.cross(axes, arm, dim=2), identity, way], dim=1)
        derivatives = torch.cat([moment, force], dim=2)
        return center, derivatives.transpose(1, 2).flatten(2)

    def solve(self, equations: Sequence[Equations], priors: Sequence[KnotPrior]) -> Solution:
        """Find the most probable unknowns.

        Args:
            equations: Of the distances, of each window.
            priors: Of the knots of each window.
        """
        corner, right = self.precision.clone(), self.pull.clone()
        evidence, factors = 0.0, []
        for window, prior in zip(equations, priors, strict=True):
            factor = torch.linalg.cholesky(_with_prior(window.matrix, prior))
            columns = torch.cat([window.border, (window.right + prior.pull.flatten())[:, None]], dim=1)
            columns = torch.linalg.solve_triangular(factor, columns, upper=False)
            border, own = columns[:, :-1], columns[:, -1]
            corner += window.corner - border.T @ border
            right += window.right_shared - border.T @ own
            evidence = evidence + 0.5 * own.square().sum() - factor.diagonal().log().sum() + prior.log_probability
            factors.append((factor, border, own))
        factor = torch.linalg.cholesky(corner)
        shared = torch.cholesky_solve(right[:, None], factor)
        evidence = evidence + 0.5 * right @ shared[:, 0] - factor.diagonal().log().sum()
        knots = [
            torch.linalg.solve_triangular(factor.T, own[:, None] - border @ shared, upper=True)
            for factor, border, own in factors
        ]
        offsets, clothes = shared[:_OF_JOINTS, 0].view(-1, 3), shared[_OF_JOINTS:, 0]
        return Solution([some.view(-1, NUM_JOINTS + 1, 3) for some in knots], offsets, clothes, float(evidence))


def join(equations: Sequence[Equations], cells: Sequence[Span], window: Span) -> Equations:
    """Sum the equations of those cells that lie within a window.

    Args:
        equations: Of the cells.
        cells: Frames and knots of each.
        window: Frames and knots of the window.
    """
    size, some = (window.knots.stop - window.knots.start) * _OF_POSE, equations[0]
    result = Equations(
        some.matrix.new_zeros(size, size),
        some.border.new_zeros(size, some.border.shape[1]),
        torch.zeros_like(some.corner),
        some.right.new_zeros(size),
        torch.zeros_like(some.right_shared),
    )
    for cell, part in zip(cells, equations, strict=True):
        if cell.within(window):
            first = (cell.knots.start - window.knots.start) * _OF_POSE
            own = slice(first, first + len(part.matrix))
            places = (own, own), own, ..., own, ...
            for whole, place, value in zip(result, places, part, strict=True):
                whole[place] += value
    return result


def _with_prior(matrix: Float[Tensor, "unknowns unknowns"], prior: KnotPrior) -> Float[Tensor, "unknowns unknowns"]:
    """Return the sum of the matrix and of the prior's, which is the same for the three coordinates of a joint."""
    result, knots = matrix.clone(), prior.precision.shape[-1]
    blocks = result.view(knots, NUM_JOINTS + 1, 3, knots, NUM_JOINTS + 1, 3)
    blocks.diagonal(dim1=1, dim2=4).diagonal(dim1=1, dim2=3).add_(prior.precision.permute(1, 2, 0)[..., None])
    return result
