"""The body fitted to points all over the person's surface: SAM 3D Body's vertices, beside its keypoints.

The points are vertices of another body, so which of them lies where on this one is not known. Two things are: the
body's surface lies where the points closest to it are, and a point is the same place of the person in all frames. The
first tells the shape and, where limbs are not round, something of their twist; the second tells how a limb is twisted
in one frame against the others, round or not. Poses of all frames and the betas are found together by Gauss-Newton.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Float64, Int
from numpy import ndarray
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation
from torch import Tensor

from instantavatar_ns.body.kinematics import blended_transforms, descendants, skinned, skinning_transforms
from instantavatar_ns.body.model import BodyModel, rotation_matrices
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.body.smpl import JOINT_NAMES, NUM_BETAS, NUM_JOINTS
from instantavatar_ns.importing.keypoint_fit import (
    BETA_DEVIATION,
    EFFECTIVE_FRAMES,
    LANDMARKS,
    bend_precision,
    landmark_bones,
    landmark_places,
    landmark_targets,
    landmark_weights,
)
from instantavatar_ns.unseen.coverage import surface_normals
from instantavatar_ns.utils.progress import shown_progress

_CLOSEST_ROUNDS = (0.15, 0.12, 0.10, 0.08, 0.06, 0.05, 0.04, 0.04)
"""Metres within which points belong to the surface, in each round that knows the closest points only."""
_SAME_ROUNDS = (0.20, 0.15, 0.10, 0.06, 0.04, 0.04)
"""The same, of the rounds in which points also are the same places in all frames. Wide at first: a leg that was turned
the wrong way has found a surface too, which it must leave again."""
_SAMPLE = 1000
"""Vertices of the body that are compared, spread evenly over its surface."""
_PATCHES = 200.0
"""As many as which all of them count together: what neighbours say is much the same."""
_NOISE = 0.01
"""Deviation of the surface, and of a point's place on it, metres."""
_HANDS = ("left_hand", "right_hand")
"""Joints whose parts are left out: this body's fingers do not bend."""
_HINGES = {"knee": 1, "ankle": 1}
"""Joints that hardly turn about the limb, and its axis in the T-pose. Legs are so round that the closest points alone
turn the thighs of a body of other proportions by up to 30 degrees."""
_HINGE_TWIST = 0.15
"""Deviation of that turn, radians."""
_CANDIDATES = 8
"""Frames whose closest points are tried as a vertex's partner."""
_CHUNK = 8
"""Frames at once, which bounds the memory."""
_POSE = 3 * NUM_JOINTS + 3
"""Unknowns of a frame: turns of the joints, then the translation."""


@dataclass(frozen=True)
class SurfaceFit:
    """Poses and a shape that bring the body's surface to the points.

    Attributes:
        poses: In the points' world.
        distance: Median distance of the body's surface from the points that belong to it, metres; hands are left out.
        covered: Share of the body's surface that points belong to.
    """

    poses: PoseSequence
    distance: float
    covered: float


def fit_surface(
    body: BodyModel,
    poses: PoseSequence,
    keypoints: Float[ndarray, "frames 70 3"],
    vertices: Float32[ndarray, "frames points 3"],
) -> SurfaceFit:
    """Refine poses and betas.

    Args:
        body: The body.
        poses: Where the search begins: those of the keypoints alone.
        keypoints: MHR's, metres, in the world of the poses.
        vertices: MHR's, metres, in the same world; each is the same place of the person in all frames.
    """
    sample = _Sample.of(body)
    targets = landmark_targets(keypoints)
    rounds = [(reach, False) for reach in _CLOSEST_ROUNDS]
    if len(poses) > 1:  # a single frame has nothing to be compared with
        rounds += [(reach, True) for reach in _SAME_ROUNDS]
    distance = covered = float("nan")
    with shown_progress("Fitting the body to vertices") as done:
        for count, (reach, are_same) in enumerate(rounds):
            posed = _Posed.of(body, poses, sample)
            closest = _closest(posed.points, vertices)
            cloud = _Cloud(vertices, closest, _attached(posed, vertices, closest) if are_same else None, reach)
            equations, distance, covered = _equations(sample, posed, cloud, targets)
            poses = _stepped(poses, *_solution(equations.with_priors(poses)))
            done((count + 1) / len(rounds))
    return SurfaceFit(poses, distance, covered)


class _Sample(NamedTuple):
    """Vertices that stand for the surface, and how they and the landmarks depend on the betas.

    Attributes:
        vertices: Their numbers.
        weights: Skinning weights, of the landmarks' bones after those of the vertices.
        shares: Share of each in the turns of a joint: what its bone and those beyond it weigh.
        slopes: Derivatives in the rest pose with respect to the betas, metres.
        joint_slopes: Those of the joints.
        ancestors: Of `ancestor_table`.
    """

    vertices: Int[Tensor, "vertices"]
    weights: Float[Tensor, "points 24"]
    shares: Float[Tensor, "points 24"]
    slopes: Float[Tensor, "10 points 3"]
    joint_slopes: Float[Tensor, "10 24 3"]
    ancestors: Int[Tensor, "rounds 24"]

    @staticmethod
    def of(body: BodyModel) -> _Sample:
        rest, joints = body.rest(torch.zeros(NUM_BETAS))
        corners = rest[body.faces]
        across = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
        areas = torch.zeros(len(rest)).index_add_(0, body.faces.flatten(), across.repeat_interleave(3)).double()
        hands = [JOINT_NAMES.index(name) for name in _HANDS]
        areas[body.skinning_weights[:, hands].sum(dim=1) > 0.5] = 0.0
        count = min(_SAMPLE, int((areas > 0).sum()))
        drawn = np.random.default_rng(0).choice(len(rest), count, replace=False, p=(areas / areas.sum()).numpy())
        chosen = torch.from_numpy(drawn)
        shapes = [body.rest(betas) for betas in torch.eye(NUM_BETAS)]
        joint_slopes = torch.stack([moved - joints for _, moved in shapes])
        slopes = torch.stack([moved[chosen] - rest[chosen] for moved, _ in shapes])
        bones = landmark_bones()
        weights = torch.cat([body.skinning_weights[chosen], torch.eye(NUM_JOINTS)[bones]])
        slopes = torch.cat([slopes, joint_slopes[:, bones]], dim=1)
        return _Sample(
            chosen, weights, weights @ descendants(body.ancestors[0]).mT, slopes, joint_slopes, body.ancestors
        )


class _Posed(NamedTuple):
    """The sample in the current poses.

    Attributes:
        points: Vertices, metres.
        normals: Unit normals.
        turns: Linear maps from the rest pose at each vertex.
        joints: Joints, metres.
        rotations: Of the bones, from the rest pose to the world.
        relative: Of the bones, from their parents'.
    """

    points: Float[Tensor, "frames vertices 3"]
    normals: Float[Tensor, "frames vertices 3"]
    turns: Float[Tensor, "frames vertices 3 3"]
    joints: Float[Tensor, "frames 24 3"]
    rotations: Float[Tensor, "frames 24 3 3"]
    relative: Float[Tensor, "frames 24 3 3"]

    @staticmethod
    def of(body: BodyModel, poses: PoseSequence, sample: _Sample) -> _Posed:
        rest, joints = body.rest(poses.betas)
        normals = surface_normals(rest, body.faces)[sample.vertices]
        weights = sample.weights[: len(sample.vertices)]
        parts = []
        for start in range(0, len(poses), _CHUNK):
            some = poses.rows(slice(start, start + _CHUNK))
            values = some.global_orient, some.body_pose, some.transl
            points = body.vertices(poses.betas, *values)[:, sample.vertices]
            transforms = body.transforms(poses.betas, *values)
            turns = blended_transforms(weights, transforms)[..., :3]
            at = (transforms[..., :3, :3] @ joints[:, :, None])[..., 0] + transforms[..., :3, 3]
            turned = F.normalize((turns @ normals[:, :, None])[..., 0], dim=-1)
            relative = rotation_matrices(some.axis_angles)
            parts.append(_Posed(points, turned, turns, at, transforms[..., :3, :3], relative))
        return _Posed(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def rows(self, rows: slice) -> _Posed:
        return _Posed(*(values[rows] for values in self))


class _Attached(NamedTuple):
    """Points of the cloud that go with vertices of the sample, the same in all frames.

    Attributes:
        partners: Number of each vertex' point.
        offsets: From the vertex to its point in the rest pose, metres.
    """

    partners: Int[ndarray, "vertices"]
    offsets: Float[Tensor, "vertices 3"]


class _Cloud(NamedTuple):
    """Points of the person's surface in one round of the fit, and which of them belong to the body's vertices.

    Attributes:
        points: Metres.
        closest: Number of the point that lies closest to each vertex of the sample.
        attached: Points that go with these vertices; None where that is not asked yet.
        reach: Metres within which points belong to the surface.
    """

    points: Float32[ndarray, "frames points 3"]
    closest: Int[ndarray, "frames vertices"]
    attached: _Attached | None
    reach: float

    def near(self, frames: slice) -> Float[Tensor, "frames vertices 3"]:
        """Closest points."""
        return torch.from_numpy(np.take_along_axis(self.points[frames], self.closest[frames, :, None], axis=1))


def _closest(
    points: Float[Tensor, "frames vertices 3"], cloud: Float32[ndarray, "frames points 3"]
) -> Int[ndarray, "frames vertices"]:
    """Numbers of the cloud's points that lie closest."""
    # Trees are made anew in each round: those of a long video would fill the memory.
    trees = (KDTree(each, balanced_tree=False, compact_nodes=False) for each in cloud)
    return np.stack([tree.query(each)[1] for tree, each in zip(trees, points.numpy(), strict=True)])


def _attached(
    posed: _Posed, cloud: Float32[ndarray, "frames points 3"], closest: Int[ndarray, "frames vertices"]
) -> _Attached:
    """Partners: of the points that are closest in some of the frames those that are near in most of all."""
    candidates = closest[np.linspace(0, len(closest) - 1, min(_CANDIDATES, len(closest))).astype(int)]
    near = [np.median(np.linalg.norm(cloud[:, each] - posed.points.numpy(), axis=-1), axis=0) for each in candidates]
    partners = candidates[np.argmin(near, axis=0), np.arange(candidates.shape[1])]
    away = torch.from_numpy(cloud[:, partners]) - posed.points
    return _Attached(partners, (posed.turns.mT @ away[..., None])[..., 0].median(dim=0).values)


def _moved_places(posed: _Posed, targets: Float[Tensor, "frames points 3"]) -> Float[Tensor, "landmarks 3"]:
    """Places of the keypoints on the bones, as they are on average, near the expected ones; see `landmark_places`."""
    bones = landmark_bones()
    expected = landmark_places(torch.zeros(len(LANDMARKS), 3))
    found = (posed.rotations[:, bones].mT @ (targets - posed.joints[:, bones])[..., None])[..., 0] - expected
    left, right = found.split(len(LANDMARKS), dim=1)
    both = torch.cat([left, right * torch.tensor([-1.0, 1.0, 1.0])])
    weights = landmark_weights(both)
    precision = 1 / torch.tensor([landmark.spread for landmark in LANDMARKS]) ** 2
    total = weights.sum(dim=0) + precision * len(targets) / EFFECTIVE_FRAMES
    return (weights[..., None] * both).sum(dim=0) / total[:, None]


class _Equations(NamedTuple):
    """Normal equations of the frames' poses and the betas that they share.

    Attributes:
        poses: Matrix of each frame.
        mixed: Between each frame and the betas.
        betas: Matrix of the betas, of all frames.
        right_poses: Right sides.
        right_betas: Of all frames.
    """

    poses: Float[Tensor, "frames 75 75"]
    mixed: Float[Tensor, "frames 75 10"]
    betas: Float[Tensor, "10 10"]
    right_poses: Float[Tensor, "frames 75"]
    right_betas: Float[Tensor, "10"]

    def with_priors(self, current: PoseSequence) -> _Equations:
        """Equations with the priors of the joints' turns and of the betas added."""
        precision = _pose_precision()
        pose = torch.cat([current.axis_angles.flatten(1), torch.zeros(len(current), 3)], dim=1).double()
        of_betas = len(current) / EFFECTIVE_FRAMES / BETA_DEVIATION**2
        return self._replace(
            poses=self.poses + torch.diag(precision),
            betas=self.betas + of_betas * torch.eye(NUM_BETAS),
            right_poses=self.right_poses - precision * pose,
            right_betas=self.right_betas - of_betas * current.betas.double(),
        )


def _pose_precision() -> Float64[Tensor, "75"]:
    """Inverse variances of a frame's unknowns; root and translation may be any."""
    precision = torch.zeros(_POSE, dtype=torch.float64)
    precision[3 : 3 * NUM_JOINTS] = bend_precision().repeat_interleave(3)
    for name, axis in _HINGES.items():
        for side in ("left", "right"):
            precision[3 * JOINT_NAMES.index(f"{side}_{name}") + axis] = 1 / _HINGE_TWIST**2
    return precision


class _Rows(NamedTuple):
    """Residuals: distances of moved points from where they should be, along directions."""

    points: Float[Tensor, "frames rows 3"]
    directions: Float[Tensor, "frames rows 3"]
    shares: Float[Tensor, "rows 24"]
    slopes: Float[Tensor, "frames rows 10"]
    residuals: Float[Tensor, "frames rows"]
    weights: Float[Tensor, "frames rows"]

    def jacobian(self, posed: _Posed) -> Float[Tensor, "frames rows 85"]:
        """Derivatives with respect to small turns of the joints about their own axes, the translation and the betas."""
        arms = self.points[:, :, None] - posed.joints[:, None]
        turns = torch.linalg.cross(arms, self.directions[:, :, None].expand_as(arms))
        turns = torch.einsum("frjc,fjcd->frjd", self.shares[..., None] * turns, posed.rotations)
        return torch.cat([turns.flatten(2), self.directions, self.slopes], dim=-1)


def _equations(
    sample: _Sample, posed: _Posed, cloud: _Cloud, targets: Float[Tensor, "frames points 3"]
) -> tuple[_Equations, float, float]:
    """Normal equations around the current poses, without priors, then distance and share as of `SurfaceFit`."""
    moved = _moved_places(posed, targets)
    parts, distances = [], []
    for start in range(0, len(targets), _CHUNK):
        frames = slice(start, start + _CHUNK)
        some = posed.rows(frames)
        slopes = _slopes(sample, some)
        surface = _surface_rows(sample, some, slopes, cloud.near(frames), cloud.reach)
        rows = [surface, _landmark_rows(sample, some, slopes, targets[frames], moved)]
        if cloud.attached is not None:
            partners = torch.from_numpy(cloud.points[frames, cloud.attached.partners])
            rows.append(_attached_rows(sample, some, slopes, partners, cloud.attached.offsets, cloud.reach))
        distances.append(surface.residuals[surface.weights > 0].abs())
        parts.append(_normal_equations(rows, some))
    poses, mixed, betas, right_poses, right_betas = (torch.cat(values) for values in zip(*parts, strict=True))
    equations = _Equations(poses, mixed, betas.sum(dim=0), right_poses, right_betas.sum(dim=0))
    found = torch.cat(distances)
    return equations, float(found.median()), len(found) / cloud.closest.size


def _normal_equations(rows: list[_Rows], posed: _Posed) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Parts of `_Equations`, those of the betas for each frame too."""
    unknowns = _POSE + NUM_BETAS
    matrix = torch.zeros(len(posed.points), unknowns, unknowns, dtype=torch.float64)
    right = torch.zeros(len(posed.points), unknowns, dtype=torch.float64)
    for each in rows:
        jacobian = each.jacobian(posed)
        weighted = jacobian * each.weights[..., None]
        matrix += weighted.mT @ jacobian
        right -= (weighted.mT @ each.residuals[..., None])[..., 0]
    of_pose, of_betas = matrix.split([_POSE, NUM_BETAS], dim=1)
    return of_pose[..., :_POSE], of_pose[..., _POSE:], of_betas[..., _POSE:], right[:, :_POSE], right[:, _POSE:]


def _slopes(sample: _Sample, posed: _Posed) -> Float[Tensor, "frames points 3 10"]:
    """Derivatives of the posed vertices and landmarks with respect to the betas."""
    nowhere = torch.zeros(len(posed.joints), 3)
    columns = [
        skinned(rest, sample.weights, skinning_transforms(posed.relative, nowhere, joints, sample.ancestors))
        for rest, joints in zip(sample.slopes, sample.joint_slopes, strict=True)
    ]
    return torch.stack(columns, dim=-1)


def _surface_rows(
    sample: _Sample, posed: _Posed, slopes: Tensor, near: Float[Tensor, "frames vertices 3"], reach: float
) -> _Rows:
    """Vertices against the closest points, along the normals: along the surface they may slide."""
    count = len(sample.vertices)
    away = posed.points - near
    residuals = (away * posed.normals).sum(dim=-1)
    weights = _PATCHES / count / _NOISE**2 / (1 + (residuals / (2 * _NOISE)).square())
    weights = weights * (away.norm(dim=-1) < reach)
    along = torch.einsum("frc,frcb->frb", posed.normals, slopes[:, :count])
    return _Rows(posed.points, posed.normals, sample.shares[:count], along, residuals, weights)


def _attached_rows(
    sample: _Sample,
    posed: _Posed,
    slopes: Tensor,
    partners: Float[Tensor, "frames vertices 3"],
    offsets: Float[Tensor, "vertices 3"],
    reach: float,
) -> _Rows:
    """Vertices, with their partners' offsets, against these; half the reach away they count half."""
    count = len(sample.vertices)
    points = posed.points + (posed.turns @ offsets[:, :, None])[..., 0]
    away = points - partners
    weights = _PATCHES / count / _NOISE**2 / (1 + away.square().sum(dim=-1) / (reach / 2) ** 2)
    return _along_axes(points, away, weights, sample.shares[:count], slopes[:, :count])


def _landmark_rows(
    sample: _Sample,
    posed: _Posed,
    slopes: Tensor,
    targets: Float[Tensor, "frames points 3"],
    moved: Float[Tensor, "landmarks 3"],
) -> _Rows:
    """Landmarks against keypoints."""
    count, bones = len(sample.vertices), landmark_bones()
    points = posed.joints[:, bones] + (posed.rotations[:, bones] @ landmark_places(moved)[:, :, None])[..., 0]
    away = points - targets
    return _along_axes(points, away, landmark_weights(away), sample.shares[count:], slopes[:, count:])


def _along_axes(points: Tensor, away: Tensor, weights: Tensor, shares: Tensor, slopes: Tensor) -> _Rows:
    """Three rows of each point, along the world's axes."""
    return _Rows(
        points.repeat_interleave(3, dim=1),
        torch.eye(3).repeat(points.shape[1], 1).expand(len(points), -1, 3),
        shares.repeat_interleave(3, dim=0),
        slopes.flatten(1, 2),
        away.flatten(1),
        weights.repeat_interleave(3, dim=1),
    )


def _solution(equations: _Equations) -> tuple[Float64[Tensor, "frames 75"], Float64[Tensor, "10"]]:
    """Changes of the poses and of the betas; the poses are eliminated first, frame by frame, and then put in."""
    right = torch.cat([equations.mixed, equations.right_poses[..., None]], dim=-1)
    of_betas, of_right = torch.linalg.solve(equations.poses, right).split([NUM_BETAS, 1], dim=-1)
    matrix = equations.betas - (equations.mixed.mT @ of_betas).sum(dim=0)
    betas = torch.linalg.solve(matrix, equations.right_betas - (equations.mixed.mT @ of_right).sum(dim=0)[:, 0])
    return of_right[..., 0] - of_betas @ betas, betas


def _stepped(poses: PoseSequence, change: Float64[Tensor, "frames 75"], betas: Float64[Tensor, "10"]) -> PoseSequence:
    turns, shift = change.split([3 * NUM_JOINTS, 3], dim=1)
    before = Rotation.from_rotvec(poses.axis_angles.reshape(-1, 3).double().numpy())
    after = (before * Rotation.from_rotvec(turns.reshape(-1, 3).numpy())).as_rotvec()
    angles = torch.from_numpy(after).float().view(len(poses), NUM_JOINTS, 3)
    return poses.with_shape(poses.betas + betas.float()).with_pose(angles, poses.transl + shift.float())
