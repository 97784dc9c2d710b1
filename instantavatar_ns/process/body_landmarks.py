"""Points of a body that MediaPipe's 33 landmarks stand for.

The network was trained on points that people clicked: those of the face, hands and feet lie on the surface, those at
the joints somewhere within. SMPL's joints are others. Each landmark is tied to one bone, at a place that is found on
the body's mesh; how far the network's own place differs, for this person and these clothes, is left to the fit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.smpl import JOINT_NAMES, NUM_BETAS

_JOINTS: list[str] = list(JOINT_NAMES)
NUM_LANDMARKS = 33
# Each landmark's counterpart on the other side; the nose is its own.
MIRRORED_LANDMARKS = [
    0,
    4,
    5,
    6,
    1,
    2,
    3,
    8,
    7,
    10,
    9,
    *(number + 1 - 2 * (number % 2 == 0) for number in range(11, 33)),
]
NOSE, LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP = 0, 11, 12, 23, 24
# Landmarks at joints, left ones; the right one is the next in both orders.
_AT_JOINTS = {
    11: "left_shoulder",
    13: "left_elbow",
    15: "left_wrist",
    23: "left_hip",
    25: "left_knee",
    27: "left_ankle",
}
# Of the face, from the nose, metres: towards the person's left, up, ahead.
_OF_FACE = {1: (0.016, 0.035, -0.03), 2: (0.031, 0.035, -0.03), 3: (0.045, 0.035, -0.037), 9: (0.025, -0.035, -0.02)}
_EAR_BEHIND_NOSE, _EAR_ABOVE_NOSE = 0.11, 0.02
# Of the hand: along it from the wrist to SMPL's hand joint, as a share, and metres towards the thumb.
_OF_HAND = {17: (0.95, -0.03), 19: (1.0, 0.025), 21: (0.45, 0.045)}
_TOE_LENGTH = 0.02  # metres from the tip of the foot to where the toe counts


class BodyLandmarks(NamedTuple):
    """Places of the landmarks on a body in its T-pose.

    Attributes:
        bone: That each landmark moves with.
        offset: From that bone's joint, metres.
    """

    bone: Int[Tensor, "33"]
    offset: Float[Tensor, "33 3"]


def body_landmarks(body: BodyModel) -> BodyLandmarks:
    """Find the landmarks on a body's mesh, whatever its topology: SMPL's axes are y up and z ahead in the T-pose."""
    vertices, joints = body.rest(torch.zeros(NUM_BETAS, device=body.joint_offsets.device))
    bone, place = joints.new_zeros(NUM_LANDMARKS, dtype=torch.long), joints.new_zeros(NUM_LANDMARKS, 3)

    def put(landmark: int, joint: str, point: Tensor) -> None:
        bone[landmark], place[landmark] = _JOINTS.index(joint), point

    def mesh_of(*names: str) -> Float[Tensor, "some 3"]:
        return vertices[body.skinning_weights[:, [_JOINTS.index(name) for name in names]].sum(dim=1) > 0.5]

    head = mesh_of("head")
    middle = head[:, 0].mean()
    ahead = head[(head[:, 0] - middle).abs() < 0.2 * (head[:, 0].max() - middle)]
    nose = ahead[ahead[:, 2].argmax()].clone()
    nose[0] = middle
    put(NOSE, "head", nose)
    for side, (name, sign) in enumerate((("left", 1.0), ("right", -1.0))):
        for landmark, (across, up, forward) in _OF_FACE.items():
            other = MIRRORED_LANDMARKS[landmark] if side else landmark
            put(other, "head", nose + nose.new_tensor([sign * across, up, forward]))
        ear = nose + nose.new_tensor([0.0, _EAR_ABOVE_NOSE, -_EAR_BEHIND_NOSE])
        near = head[((head[:, 1:] - ear[1:]).norm(dim=1)).argsort()[: max(len(head) // 20, 1)]]
        ear[0] = (near[:, 0] * sign).max() * sign
        put(7 + side, "head", ear)
        for landmark, joint in _AT_JOINTS.items():
            joint = joint.replace("left", name)
            put(landmark + side, joint, joints[_JOINTS.index(joint)])
        wrist, hand = (joints[_JOINTS.index(f"{name}_{part}")] for part in ("wrist", "hand"))
        for landmark, (along, thumbwards) in _OF_HAND.items():
            point = wrist + along * (hand - wrist) + wrist.new_tensor([0.0, 0.0, thumbwards])
            put(landmark + side, f"{name}_wrist", point)
        foot = mesh_of(f"{name}_ankle", f"{name}_foot")
        # The heel is far behind and low.
        put(29 + side, f"{name}_ankle", foot[(foot[:, 2] + foot[:, 1]).argmin()])
        tip = foot[foot[:, 2].argmax()]
        put(31 + side, f"{name}_foot", tip - tip.new_tensor([0.0, 0.0, _TOE_LENGTH]))
    return BodyLandmarks(bone, place - joints[bone])
