"""Corrections of given poses, found together with the avatar.

A frame's correction is a rotation vector for each joint and a shift of the whole body. Rotations are composed on SO(3),
exp(correction) R_given in the axes of the joint's parent, so that a step is the same whatever the pose. The errors of
pose estimators change slowly: a correction is a spline over time, whose knots every frame nearby improves, plus a
remainder of the frame's own. A training step sees one frame; without the spline each frame would have to find its
correction in some 25 steps.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.interpolate import BSpline
from torch import Tensor, nn

from instantavatar_ns.body.canonical import canonical_transforms, root_space
from instantavatar_ns.body.kinematics import descendants, skinned, skinning_transforms
from instantavatar_ns.body.model import BodyModel, rotation_matrices
from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.correction.pose_prior import PriorConstants, pose_prior
from instantavatar_ns.data.subject import Subject
from instantavatar_ns.kernels.usable import triton_usable
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.linalg import rigid_inverse

_USUAL_SPREAD = 0.006  # radians: poses of a good fit


class PoseRefinement(nn.Module):
    """Poses with corrections: posed bodies, made anew from the corrections and differentiable with respect to them.

    The corrections alone are parameters; a checkpoint holds them, their coordinates and the person's joints. At first
    corrections are zero and the joints the body's.

    Args:
        body: The person's body.
        poses: The given SMPL parameters, in the dataset's world.
        times: Place of each frame in its recording, ascending, in frames.
        world_to_dataset: Rigid transform from nerfstudio's world.
        coordinates: In which the corrections are kept, a column each; by default `surface_coordinates`.
        knot_spacing: Frames of the recording between two knots of the spline.

    Raises:
        InputError: `knot_spacing` is not positive and finite.
    """

    given_rotations: Float[Tensor, "frames joints 3 3"]
    given_transl: Float[Tensor, "frames 3"]
    basis: Float[Tensor, "frames knots"]
    bending: Float[Tensor, "triples frames"]
    joints: Float[Tensor, "joints 3"]
    ancestors: Int[Tensor, "rounds joints"]
    descendants: Float[Tensor, "joints joints"]
    canonical: Float[Tensor, "joints 4 4"]
    to_canonical: Float[Tensor, "joints 4 4"]
    world_to_dataset: Float[Tensor, "4 4"]
    coordinates: Float[Tensor, "coordinates coordinates"]
    start: Float[Tensor, "frames vectors 3"]
    certainty: Float[Tensor, ""]

    def __init__(
        self,
        body: BodyModel,
        poses: PoseSequence,
        times: Float[Tensor, "frames"],
        world_to_dataset: Float[Tensor, "4 4"],
        coordinates: Float[Tensor, "coordinates coordinates"] | None = None,
        *,
        knot_spacing: float = 8.0,
    ) -> None:
        super().__init__()
        constants = {
            "given_rotations": rotation_matrices(poses.axis_angles),
            "given_transl": poses.transl,
            "basis": spline_basis(times, knot_spacing),
            "bending": second_differences(times),
            "ancestors": body.ancestors,
            "descendants": descendants(body.ancestors[0]),
            "canonical": canonical_transforms(body, poses.betas),
            "to_canonical": rigid_inverse(canonical_transforms(body, poses.betas)),
            "world_to_dataset": world_to_dataset,
        }
        for name, value in constants.items():  # they follow from the data
            self.register_buffer(name, value, persistent=False)
        # Another machine may find eigenvectors of the opposite sign, and align the poses a little differently.
        coordinates = surface_coordinates(body, poses) if coordinates is None else coordinates
        self.register_buffer("coordinates", coordinates.contiguous())
        self.register_buffer("joints", body.rest(poses.betas)[1])
        self.register_buffer("start", torch.zeros(len(times), body.num_joints + 1, 3))
        self.register_buffer("certainty", torch.ones(()))
        self.knots = nn.Parameter(torch.zeros(self.basis.shape[1], len(coordinates)))
        self.remainders = nn.Parameter(torch.zeros(len(times), len(coordinates)))

    @classmethod
    def of_training_frames(cls, subject: Subject, body: BodyModel, knot_spacing: float) -> PoseRefinement:
        """Return the given poses of the training frames, to be corrected.

        Args:
            subject: The person.
            body: The person's body.
            knot_spacing: Frames of the recording between two knots of the spline.
        """
        times, world_to_dataset = subject.train_numbers.float(), subject.world_to_dataset
        return cls(body, subject.train_poses, times, world_to_dataset, knot_spacing=knot_spacing)

    def __len__(self) -> int:
        return len(self.remainders)

    def __getitem__(self, frame: int | Int[Tensor, ""]) -> PosedBody:
        """One frame's pose; its gradient reaches the frame's remainder and the knots around it."""
        # One row, not a number: to read a number from the device, or to send it there, blocks the host.
        if isinstance(frame, int):
            row = torch.full((1,), frame, device=self.basis.device)
        else:
            row = frame.to(self.basis.device).view(1)
        if self.basis.is_cuda and triton_usable():
            return self._by_kernel(row)
        world_to_root, bones = self._pose(self._live(row), self.given_rotations[row], self.given_transl[row])
        return PosedBody(world_to_root[0], bones[0])

    def _by_kernel(self, row: Int[Tensor, "1"]) -> PosedBody:
        """One frame's pose in one launch, and its gradient in another."""
        # Triton is imported where it is used: it is no part of PyTorch on every platform.
        from instantavatar_ns.correction.frame_pose_triton import FrameConstants, frame_pose_triton

        constants = FrameConstants(*(getattr(self, name).contiguous() for name in FrameConstants._fields))
        return PosedBody(*frame_pose_triton(row, self.knots, self.remainders, constants))

    @property
    def bone_transforms(self) -> Float[Tensor, "frames joints 4 4"]:
        """From the canonical pose to root space, in every frame."""
        return self._pose(self.corrections(), self.given_rotations, self.given_transl)[1]

    @torch.no_grad()
    def start_from(
        self,
        knots: Float[Tensor, "knots vectors 3"],
        remainders: Float[Tensor, "frames vectors 3"],
        spread: float,
        joints: Float[Tensor, "joints 3"],
    ) -> None:
        """Begin with these corrections, in place of those there are, and stay near them.

        Args:
            knots: Of the spline.
            remainders: Of the frames.
            spread: How far off the given poses' rotations seem to be, radians. Where that is next to nothing, the prior
                holds them all the more.
            joints: Where the person's are in the T-pose, metres.
        """
        self.joints.copy_(joints)
        self.knots.copy_(torch.linalg.solve(self.coordinates, knots.flatten(1).T).T)
        self.remainders.copy_(torch.linalg.solve(self.coordinates, remainders.flatten(1).T).T)
        self.start.copy_(self.corrections())
        self.certainty.fill_(max(1.0, (_USUAL_SPREAD / spread) ** 2))

    def corrections(self) -> Float[Tensor, "frames vectors 3"]:
        """Rotation vectors of the joints, radians, and the shift, metres, of every frame."""
        return self._correction(self.basis @ self.knots + self.remainders)

    def _live(self, row: Int[Tensor, "1"]) -> Float[Tensor, "1 vectors 3"]:
        """One frame's correction."""
        return self._correction(self.basis[row] @ self.knots + self.remainders.index_select(0, row))

    def _correction(self, values: Float[Tensor, "batch coordinates"]) -> Float[Tensor, "batch vectors 3"]:
        return (values @ self.coordinates.T).unflatten(-1, (-1, 3))

    def corrected(self) -> tuple[Float[Tensor, "frames joints 3 3"], Float[Tensor, "frames 3"]]:
        """Rotations of the joints relative to their parents, and translations in the dataset's world."""
        return self._correct(self.corrections(), self.given_rotations, self.given_transl)

    def prior(self, frame: Int[Tensor, ""], given_weight: float, bending_weight: float) -> Float[Tensor, ""]:
        """Penalise corrections that are far from their start, and unsteadily so, with a gradient of one frame alone.

        Steps see one frame each: with the others held fixed, the sum over the steps is descent on the whole prior.

        Args:
            frame: Index of the frame whose correction gets a gradient.
            given_weight: Of its squared distance from the start, summed over radians and metres.
            bending_weight: Of the squared second derivatives of all corrections over time.
        """
        constants = PriorConstants(*(getattr(self, name) for name in PriorConstants._fields))
        return pose_prior(self.knots, self.remainders, frame.view(1), constants, given_weight, bending_weight)

    @staticmethod
    def _correct(
        corrections: Float[Tensor, "batch vectors 3"],
        rotations: Float[Tensor, "batch joints 3 3"],
        transl: Float[Tensor, "batch 3"],
    ) -> tuple[Float[Tensor, "batch joints 3 3"], Float[Tensor, "batch 3"]]:
        return rotation_matrices(corrections[:, :-1]) @ rotations, transl + corrections[:, -1]

    def _pose(
        self,
        corrections: Float[Tensor, "batch vectors 3"],
        rotations: Float[Tensor, "batch joints 3 3"],
        transl: Float[Tensor, "batch 3"],
    ) -> tuple[Float[Tensor, "batch 4 4"], Float[Tensor, "batch joints 4 4"]]:
        """World to root space, and canonical pose to root space."""
        corrected = self._correct(corrections, rotations, transl)
        transforms = skinning_transforms(*corrected, self.joints, self.ancestors)
        root_to_dataset, bones = root_space(transforms, self.canonical)
        return rigid_inverse(root_to_dataset) @ self.world_to_dataset, bones


def spline_basis(times: Float[Tensor, "frames"], spacing: float) -> Float[Tensor, "frames knots"]:
    """Uniform cubic B-splines at given times; rows sum to 1.

    Args:
        times: Ascending, frames.
        spacing: Wanted distance of the knots, frames; it is stretched to divide the whole range evenly.

    Raises:
        InputError: The spacing is not positive and finite.
    """
    if not 0 < spacing < float("inf"):
        message = f"expected a finite number of frames above 0, found {spacing}"
        raise InputError("--pipeline.model.pose-knot-spacing", message, "Leave the option out for the default of 8")
    span = float(times[-1] - times[0])
    pieces = max(round(span / spacing), 1)
    places = (times - times[0]).double().cpu().numpy() * (pieces / max(span, 1.0))
    basis = BSpline.design_matrix(places.clip(0, pieces), np.arange(-3.0, pieces + 4), 3)
    return torch.from_numpy(basis.toarray()).to(times)


def second_differences(times: Float[Tensor, "frames"]) -> Float[Tensor, "triples frames"]:
    """Rows whose products with values at `times` are second derivatives, 1/frames², times the root of the time each
    row stands for: the sum of their squares is the integral of the squared second derivative, however uneven the gaps.
    """
    triples = max(len(times) - 2, 0)
    rows = times.new_zeros(triples, len(times))
    before, after = (times[1:-1] - times[:-2], times[2:] - times[1:-1]) if triples else (times[:0], times[:0])
    whole = before + after
    place = torch.arange(triples, device=times.device)
    scale = (whole / 2).sqrt()
    rows[place, place] = scale * 2 / (before * whole)
    rows[place, place + 1] = -scale * 2 / (before * after)
    rows[place, place + 2] = scale * 2 / (after * whole)
    return rows


def surface_coordinates(
    body: BodyModel, poses: PoseSequence, least: float = 0.3
) -> Float[Tensor, "coordinates coordinates"]:
    """Coordinates of corrections along which equal steps move the body's surface equally far.

    A turn of the pelvis moves everything and is undone by the hips and the spine; a turn of a hand moves next to
    nothing. Adam works coordinate by coordinate: it wants them independent of each other and alike in effect.

    Args:
        body: The body.
        poses: Typical poses; a few of them are looked at.
        least: Metres of surface displacement (root of its mean square) per radian at which a coordinate counts as
            without effect; its steps are no longer than those of one with that effect.

    Returns:
        Columns are corrections (rotation vectors of the joints, radians, then the shift, metres) that move the
        surface by one metre, root of the mean square.
    """
    some = torch.linspace(0, len(poses) - 1, min(len(poses), 6)).round().long()
    rest, joints = body.rest(poses.betas)
    stride = max(len(rest) // 500, 1)
    weights, vertices = body.skinning_weights[::stride].double(), rest[::stride].double()
    given, transl = rotation_matrices(poses.axis_angles[some].double()), poses.transl[some].double()
    # By differences, which are exact to seven digits: PyTorch's forward mode takes half a second to import.
    reach, coordinates = 1e-4, 3 * body.num_joints + 3
    moves = reach * torch.cat([torch.eye(coordinates), -torch.eye(coordinates)]).double()
    turns = rotation_matrices(moves.view(len(moves), 1, -1, 3)[:, :, :-1]) @ given
    shifted = transl + moves[:, None, -3:]
    transforms = skinning_transforms(turns.flatten(0, 1), shifted.flatten(0, 1), joints.double(), body.ancestors)
    ahead, behind = skinned(vertices, weights, transforms).view(2, coordinates, -1)
    motion = ((ahead - behind) / (2 * reach)).T.to(rest)
    effect, axes = torch.linalg.eigh(motion.T @ motion * (3 / len(motion)))
    return axes / (effect.clamp_min(0) + least**2).sqrt()
