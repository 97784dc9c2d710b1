"""The body fitted to points in space that another body's estimator gives: SAM 3D Body's 70 keypoints.

Each keypoint is attached to a bone. Where on it is known only about: the keypoints are those of another body, whose
hips and shoulders lie a little elsewhere. So poses of all frames, the betas and the places of the keypoints on the
bones, the same in all frames and mirrored from left to right, are found together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.spatial.transform import Rotation
from torch import Tensor

from instantavatar_ns.body.kinematics import skinning_transforms
from instantavatar_ns.body.model import BodyModel, rotation_matrices
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.body.smpl import JOINT_NAMES, NUM_BETAS, NUM_JOINTS
from instantavatar_ns.utils.progress import shown_progress


class Landmark(NamedTuple):
    """A keypoint of both sides of the body, or of its middle.

    Attributes:
        left: Its number among MHR's 70.
        right: The other side's; the same for one in the middle.
        bone: Joint that it turns with, of the left side.
        place: From the joint in the T-pose that looks along z, left side, metres: of a body that is 1.7 m tall.
        spread: Deviation of that place, metres.
    """

    left: int
    right: int
    bone: str
    place: tuple[float, float, float]
    spread: float


LANDMARKS = (
    Landmark(0, 0, "head", (0.0, 0.06, 0.14), 0.03),
    Landmark(1, 2, "head", (0.03, 0.09, 0.11), 0.03),
    Landmark(3, 4, "head", (0.075, 0.08, 0.02), 0.03),
    Landmark(69, 69, "neck", (0.0, 0.0, 0.0), 0.02),
    Landmark(5, 6, "left_shoulder", (0.0, 0.0, 0.0), 0.01),
    Landmark(67, 68, "left_collar", (0.11, 0.03, 0.0), 0.03),
    Landmark(7, 8, "left_elbow", (0.0, 0.0, 0.0), 0.01),
    Landmark(63, 64, "left_elbow", (0.0, 0.0, -0.04), 0.015),
    Landmark(65, 66, "left_elbow", (0.0, 0.0, 0.04), 0.015),
    Landmark(62, 41, "left_wrist", (0.0, 0.0, 0.0), 0.01),
    Landmark(49, 28, "left_wrist", (0.095, 0.0, 0.025), 0.015),
    Landmark(53, 32, "left_wrist", (0.095, 0.0, 0.0), 0.015),
    Landmark(61, 40, "left_wrist", (0.08, 0.0, -0.04), 0.015),
    Landmark(9, 10, "pelvis", (0.10, -0.04, 0.0), 0.02),
    Landmark(11, 12, "left_knee", (0.0, 0.0, 0.0), 0.01),
    Landmark(13, 14, "left_ankle", (0.0, 0.0, 0.0), 0.01),
    Landmark(15, 18, "left_foot", (-0.015, -0.01, 0.06), 0.02),
    Landmark(16, 19, "left_foot", (0.04, -0.01, 0.03), 0.02),
    Landmark(17, 20, "left_ankle", (0.0, -0.05, -0.05), 0.02),
)
"""Keypoints that tell of the pose; fingers do not."""
_NOISE = 0.01
"""Deviation of a keypoint, metres; larger ones count less."""
_BEND = {
    "spine1": 0.2,
    "spine2": 0.2,
    "spine3": 0.2,
    "neck": 0.2,
    "left_collar": 0.2,
    "right_collar": 0.2,
    "left_foot": 0.1,
    "right_foot": 0.1,
    "left_hand": 0.02,
    "right_hand": 0.02,
}
"""Deviation of joints' turns, radians; of all others `_FREE`."""
_FREE = 1.0
BETA_DEVIATION = 2.0
"""Deviation of a coefficient: the person's proportions rather than another place of the keypoints."""
EFFECTIVE_FRAMES = 3.0
"""As many as which all frames count together for what they share."""
STEPS, ROUGH_STEPS = 1200, 200
"""Steps at most: many frames of a dance take more than a thousand. The rough ones are a start for a finer fit."""
_STEPS_AT_ONCE = 20
"""Steps between two looks at the loss."""
_ENOUGH = 0.005
"""Share of the loss by which it must fall from look to look."""


@dataclass(frozen=True)
class KeypointFit:
    """Poses that bring the body's landmarks to the keypoints.

    Attributes:
        poses: In the keypoints' world.
        distance: Mean distance between landmark and keypoint, metres.
    """

    poses: PoseSequence
    distance: float


def fit_keypoints(
    body: BodyModel,
    keypoints: Float[ndarray, "frames 70 3"],
    betas: Float[Tensor, "10"] | None = None,
    steps: int = STEPS,
) -> KeypointFit:
    """Fit poses, and betas where they are not given.

    Args:
        body: The body.
        keypoints: MHR's, metres, in any world.
        betas: The person's shape, where it is known.
        steps: Steps at most.
    """
    targets = landmark_targets(keypoints)
    frames = len(targets)
    skeleton = _Skeleton.of(body)
    turned, at = _first_guess(skeleton, targets)
    unknown = {
        "turn": torch.zeros(frames, 3),
        "bend": torch.zeros(frames, 3 * (NUM_JOINTS - 1)),
        "shift": torch.zeros(frames, 3),
        "place": torch.zeros(len(LANDMARKS), 3),
    }
    if betas is None:
        unknown["betas"] = torch.zeros(NUM_BETAS)
    for value in unknown.values():
        value.requires_grad_(True)
    precision = bend_precision()
    spread = torch.tensor([landmark.spread for landmark in LANDMARKS])
    shared = EFFECTIVE_FRAMES / frames

    def residuals() -> Tensor:
        shape = unknown["betas"] if betas is None else betas
        rotations = torch.cat([rotation_matrices(unknown["turn"])[:, None] @ turned, _bends(unknown["bend"])], dim=1)
        return _landmarks(skeleton, shape, rotations, at + unknown["shift"], unknown["place"]) - targets

    def loss() -> Tensor:
        squares = (residuals().square().sum(dim=-1) / _NOISE**2 / 9 + 1).log() * 9
        bend = unknown["bend"].view(frames, -1, 3).square().sum(dim=-1) * precision
        prior = unknown["place"].square().sum(dim=-1) / spread**2
        total = squares.sum() + bend.sum() + prior.sum() / shared
        if betas is None:
            total = total + unknown["betas"].square().sum() / BETA_DEVIATION**2 / shared
        return total / frames

    optimizer = torch.optim.LBFGS(
        list(unknown.values()), max_iter=_STEPS_AT_ONCE, history_size=30, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    with shown_progress("Fitting the body to keypoints") as done:
        value = float("inf")
        for count in range(0, steps, _STEPS_AT_ONCE):
            optimizer.step(closure)  # pyright: ignore[reportArgumentType]
            done((count + _STEPS_AT_ONCE) / steps)
            before, value = value, float(loss().detach())
            if before - value < _ENOUGH * value:
                break
    found = {name: value.detach() for name, value in unknown.items()}
    with torch.no_grad():
        distance = float(residuals().norm(dim=-1).mean())
    orient = rotation_matrices(found["turn"]) @ turned[:, 0]
    return KeypointFit(
        PoseSequence(
            found["betas"] if betas is None else betas, _rotation_vectors(orient), found["bend"], at + found["shift"]
        ),
        distance,
    )


class _Skeleton(NamedTuple):
    """Joints in the rest pose, linear in the betas, without the vertices that they follow from.

    Attributes:
        mean: Of the mean shape, metres.
        slopes: Derivatives with respect to the betas.
        ancestors: Of `ancestor_table`.
    """

    mean: Float[Tensor, "24 3"]
    slopes: Float[Tensor, "10 24 3"]
    ancestors: Int[Tensor, "rounds 24"]

    @staticmethod
    def of(body: BodyModel) -> _Skeleton:
        mean = body.rest(torch.zeros(NUM_BETAS))[1]
        slopes = torch.stack([body.rest(betas)[1] - mean for betas in torch.eye(NUM_BETAS)])
        return _Skeleton(mean, slopes, body.ancestors)

    def at(self, betas: Float[Tensor, "10"]) -> Float[Tensor, "24 3"]:
        return self.mean + torch.tensordot(betas, self.slopes, dims=1)


def landmark_targets(keypoints: Float[ndarray, "frames 70 3"]) -> Float[Tensor, "frames points 3"]:
    """Keypoints of the left side and of the middle, then those of the right side, where the middle's come again."""
    columns = [landmark.left for landmark in LANDMARKS] + [landmark.right for landmark in LANDMARKS]
    return torch.from_numpy(keypoints[:, columns]).float()


def landmark_bones() -> list[int]:
    """Number of the joint that each landmark of `landmark_targets` turns with."""
    numbers = {str(name): index for index, name in enumerate(JOINT_NAMES)}
    bones = [landmark.bone for landmark in LANDMARKS]
    return [numbers[bone] for bone in bones] + [numbers[bone.replace("left", "right")] for bone in bones]


def landmark_places(moved: Float[Tensor, "landmarks 3"]) -> Float[Tensor, "points 3"]:
    """Places from the bones' joints in the T-pose, metres, in the order of `landmark_targets`.

    Args:
        moved: What is added to `Landmark.place`, of the left side; in the middle nothing is added along x.
    """
    places = torch.tensor([landmark.place for landmark in LANDMARKS]) + moved
    middle = torch.tensor([landmark.left == landmark.right for landmark in LANDMARKS])
    left = torch.where(middle[:, None], places * torch.tensor([0.0, 1.0, 1.0]), places)
    return torch.cat([left, left * torch.tensor([-1.0, 1.0, 1.0])])


def landmark_weights(away: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape"]:
    """Inverse variance of landmarks that lie some metres from their keypoints: those that lie far away count less."""
    return 1 / _NOISE**2 / (1 + away.square().sum(dim=-1) / _NOISE**2 / 9)


def bend_precision() -> Float[Tensor, "23"]:
    """Inverse variance that is expected of the turns of each joint but the root, per square radian."""
    return torch.tensor([1 / _BEND.get(name, _FREE) ** 2 for name in JOINT_NAMES[1:]])


def _landmarks(
    skeleton: _Skeleton,
    betas: Float[Tensor, "10"],
    rotations: Float[Tensor, "frames 24 3 3"],
    transl: Float[Tensor, "frames 3"],
    moved: Float[Tensor, "landmarks 3"],
) -> Float[Tensor, "frames points 3"]:
    """Posed landmarks in the order of `landmark_targets`."""
    joints, bones = skeleton.at(betas), landmark_bones()
    points = joints[bones] + landmark_places(moved)
    transforms = skinning_transforms(rotations, transl, joints, skeleton.ancestors)[:, bones]
    return (transforms[..., :3, :3] @ points[:, :, None])[..., 0] + transforms[..., :3, 3]


def _first_guess(
    skeleton: _Skeleton, targets: Float[Tensor, "frames points 3"]
) -> tuple[Float[Tensor, "frames 1 3 3"], Float[Tensor, "frames 3"]]:
    """Root rotations and translations that bring hips, shoulders and neck of the resting body to their keypoints."""
    trunk = [
        side * len(LANDMARKS) + row
        for side in (0, 1)
        for row, landmark in enumerate(LANDMARKS)
        if landmark.bone in ("pelvis", "left_shoulder", "neck")
    ]
    still = torch.eye(3).expand(1, NUM_JOINTS, 3, 3)
    betas = torch.zeros(NUM_BETAS)
    rest = _landmarks(skeleton, betas, still, torch.zeros(1, 3), torch.zeros(len(LANDMARKS), 3))[0, trunk]
    seen = targets[:, trunk]
    covariance = (seen - seen.mean(dim=1, keepdim=True)).mT @ (rest - rest.mean(dim=0))
    left, _, right = torch.linalg.svd(covariance)
    sign = torch.ones(len(targets), 3)
    sign[:, 2] = torch.linalg.det(left @ right).sign()
    rotation = left @ torch.diag_embed(sign) @ right
    pelvis = skeleton.at(betas)[0]
    at = seen.mean(dim=1) - (rotation @ (rest.mean(dim=0) - pelvis)) - pelvis
    return rotation[:, None], at


def _bends(bend: Float[Tensor, "frames 69"]) -> Float[Tensor, "frames 23 3 3"]:
    return rotation_matrices(bend.view(len(bend), NUM_JOINTS - 1, 3))


def _rotation_vectors(matrices: Float[Tensor, "frames 3 3"]) -> Float[Tensor, "frames 3"]:
    return torch.from_numpy(Rotation.from_matrix(matrices.double().numpy()).as_rotvec()).float()
