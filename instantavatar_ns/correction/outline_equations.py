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
from instantavatar_ns.body.model import BodyModel, rotation_matrices
from instantavatar_ns.correction.motion_prior import KnotPrior
from instantavatar_ns.correction.silhouettes import Silhouettes, inner_edges, match_outlines
from instantavatar_ns.correction.symmetry import PATCH, joint_prior, patches
from instantavatar_ns.correction.windows import Span

# Expected, in metres: clothes are so thick, give or take, and differ so much from one patch of the body to the next.
# Outlines are normal about that, and independent where they are a patch apart.
_CLOTHES, _CLOTHES_IN_COMMON, _CLOTHES_SPREAD, _UNEVENNESS = 0.01, 0.002, 0.004, 0.007
# Whose meshes are held at a time: few fit a processor's cache, many keep a GPU busy.
_FRAMES_AT_ONCE = {"cpu": 16, "cuda": 64}


class Unknowns(NamedTuple):
    """Solution of the equations, double precision.

    Attributes:
        knots: Of the corrections: rotation vectors in the parents' axes, radians, and a shift, metres.
        joint_offsets: From the body's joints to the person's, in the T-pose, metres.
        clothes: Thickness on each patch, metres.
    """

    knots: Float[Tensor, "knots vectors 3"]
    joint_offsets: Float[Tensor, "joints 3"]
    clothes: Float[Tensor, "patches"]


class Observations(NamedTuple):
    """Rotations and translations that were given for some frames, and the silhouettes seen in them.

    Attributes:
        rotations: Of the joints relative to their parents.
        transl: Of the body in the dataset's world, metres.
        basis: Weight in each frame of the knots that have any.
        silhouettes: Of the person.
    """

    rotations: Float[Tensor, "frames joints 3 3"]
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

    knots: list[Float[Tensor, "knots vectors 3"]]
    joint_offsets: Float[Tensor, "joints 3"]
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
        self.of_joints = 3 * body.num_joints  # unknowns of the person's joints
        self.of_pose = self.of_joints + 3  # and of a knot
        self.edges, self.sides = inner_edges(body.faces)
        follows = torch.eye(body.num_joints)  # whether a bone (column) hangs on a joint (row)
        for joint in range(body.num_joints - 1, 0, -1):
            follows[self.parents[joint]] += follows[joint]
        # How much of an edge moves along with each joint's turn, with the shift, with each joint's place.
        share = (self.weights @ follows.T.to(self.weights))[self.edges].mean(dim=1)
        self.share = torch.cat([share, torch.ones_like(share[:, :1]), share], dim=1)
        patch = patches(self.rest, self.weights, self.joints, body.rig.mirror_images)
        self.num_patches = int(patch.max()) + 1
        self.patch = patch[self.edges[:, 0]]
        # The inverse covariance of clothes that have some thickness in common, and a difference on each patch.
        of_patch = _CLOTHES_SPREAD**-2
        in_common = of_patch**2 / (_CLOTHES_IN_COMMON**-2 + self.num_patches * of_patch)
        of_clothes = of_patch * torch.eye(self.num_patches).to(self.rest).double() - in_common
        of_joints, pull = (part.double() for part in joint_prior(self.joints, body.rig.mirror_images))
        self.precision = torch.block_diag(of_joints, of_clothes)
        self.pull = torch.cat([pull, _CLOTHES * of_clothes.sum(dim=1)])

    def start(self, num_knots: int) -> Unknowns:
        """Return given poses, the body's joints, and clothes as thick as is expected."""
        zeros = self.pull.new_zeros
        return Unknowns(
            zeros(num_knots, self.of_pose // 3, 3),
            torch.zeros_like(self.joints).to(self.pull),
            zeros(self.num_patches).fill_(_CLOTHES),
        )

    def linearise(self, observed: Observations, unknowns: Unknowns, reach: float) -> Equations:
        """Return equations of the distances in some frames around some unknowns.

        Args:
            observed: What is given and seen in the frames.
            unknowns: Where to linearise; knots that have weight in these frames.
            reach: Metres within which outlines belong to each other.
        """
        (frames, knots), parts = observed.basis.shape, []
        at_once = _FRAMES_AT_ONCE.get(observed.basis.device.type, 16)
        for first in range(0, frames, at_once):
            some = observed.of(slice(first, first + at_once))
            parts.append(self._of_frames(some, unknowns, reach))
        # What is solved is badly conditioned.
        basis, size = observed.basis.double(), knots * self.of_pose
        matrix, with_clothes, of_clothes, pull, pull_clothes = (
            torch.cat(part).double() for part in zip(*parts, strict=True)
        )
        pose, joints = slice(self.of_pose), slice(self.of_pose, None)
        pairs = torch.einsum("fa,fb->abf", basis, basis).reshape(knots * knots, frames)
        by_knots = (pairs @ matrix[:, pose, pose].flatten(1)).view(knots, knots, self.of_pose, self.of_pose)
        with_joints = (basis.T @ matrix[:, pose, joints].flatten(1)).view(size, self.of_joints)
        with_patches = (basis.T @ with_clothes[..., pose].flatten(1)).view(knots, self.num_patches, self.of_pose)
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

    def _of_frames(self, observed: Observations, unknowns: Unknowns, reach: float) -> tuple[Tensor, ...]:
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
        # Of each frame as many points as of the fullest: the others weigh nothing.
        frames = len(vertices)
        counts = torch.bincount(outline.frame, minlength=frames)
        place = torch.arange(len(outline.frame), device=counts.device) - (counts.cumsum(0) - counts)[outline.frame]
        most = int(counts.max())  # nothing is trained yet: may block

        def of_frame(values: Tensor) -> Tensor:
            filled = values.new_zeros(frames, most, *values.shape[1:])
            filled[outline.frame, place] = values
            return filled

        points = (outline.edge, outline.point, outline.slope, outline.distance, several)
        edge, point, slope, distance, number = map(of_frame, points)
        screw = torch.cat([torch.linalg.cross(point - center[:, None], slope), slope], dim=2)
        columns = ((screw @ derivatives).unflatten(2, (-1, 3)) * self.share[edge][..., None]).flatten(2)
        # Clothes fill the distances: the sum of both is zero. Cauchy's weights: hair and hands are no cloth.
        patch = self.patch[edge]
        residual = distance + clothes[patch]
        weight = number / _UNEVENNESS**2 / (1 + (residual / (2 * _UNEVENNESS)).square())
        weighted = columns * weight[..., None]
        at_zero = distance - (columns @ current[..., None])[..., 0]  # were they linear
        empty = columns.new_zeros(frames, self.num_patches)
        rows = (patch + self.num_patches * torch.arange(frames, device=patch.device)[:, None]).flatten()
        with_clothes = columns.new_zeros(frames * self.num_patches, columns.shape[2])
        return (
            columns.mT @ weighted,
            with_clothes.index_add_(0, rows, weighted.flatten(0, 1)).unflatten(0, (frames, -1)),
            empty.scatter_add(1, patch, weight),
            (weighted.mT @ at_zero[..., None])[..., 0],
            empty.scatter_add(1, patch, weight * at_zero),
        )

    def _derivatives(
        self, transforms: Float[Tensor, "frames joints 4 4"], joints: Float[Tensor, "joints 3"]
    ) -> tuple[Float[Tensor, "frames 3"], Float[Tensor, "frames 6 unknowns"]]:
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
        offsets, clothes = shared[: self.of_joints, 0].view(-1, 3), shared[self.of_joints :, 0]
        return Solution([some.view(-1, self.of_pose // 3, 3) for some in knots], offsets, clothes, float(evidence))


def join(equations: Sequence[Equations], cells: Sequence[Span], window: Span) -> Equations:
    """Sum the equations of those cells that lie within a window.

    Args:
        equations: Of the cells.
        cells: Frames and knots of each.
        window: Frames and knots of the window.
    """
    some = equations[0]
    of_pose = len(some.matrix) // (cells[0].knots.stop - cells[0].knots.start)
    size = (window.knots.stop - window.knots.start) * of_pose
    result = Equations(
        some.matrix.new_zeros(size, size),
        some.border.new_zeros(size, some.border.shape[1]),
        torch.zeros_like(some.corner),
        some.right.new_zeros(size),
        torch.zeros_like(some.right_shared),
    )
    for cell, part in zip(cells, equations, strict=True):
        if cell.within(window):
            first = (cell.knots.start - window.knots.start) * of_pose
            own = slice(first, first + len(part.matrix))
            places = (own, own), own, ..., own, ...
            for whole, place, value in zip(result, places, part, strict=True):
                whole[place] += value
    return result


def _with_prior(matrix: Float[Tensor, "unknowns unknowns"], prior: KnotPrior) -> Float[Tensor, "unknowns unknowns"]:
    """Return the sum of the matrix and of the prior's, which is the same for the three coordinates of a joint."""
    result, knots = matrix.clone(), prior.precision.shape[-1]
    blocks = result.view(knots, -1, 3, knots, len(result) // knots // 3, 3)
    blocks.diagonal(dim1=1, dim2=4).diagonal(dim1=1, dim2=3).add_(prior.precision.permute(1, 2, 0)[..., None])
    return result
