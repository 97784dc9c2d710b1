"""A body in all frames of a clip, by unknowns of about unit size.

A joint's rotation is one that all frames share, and a turn beside it that changes smoothly over time: a Gaussian
process, by its main modes. So a landmark that is a little off does not make the body shake, what no frame shows stays
as likely as can be, and a minimiser meets unknowns that count about alike.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.body.kinematics import skinning_transforms
from instantavatar_ns.body.model import JOINT_NAMES, NUM_BETAS, NUM_JOINTS, BodyModel, rotation_matrices
from instantavatar_ns.correction.motion_prior import matern52
from instantavatar_ns.process.body_landmarks import MIRRORED_LANDMARKS, NUM_LANDMARKS, BodyLandmarks

MOTION_LENGTH = 0.5  # seconds over which people's motion is smooth
_NEGLECTED = 1e-4  # share of the motion's variance that the modes may lack
_DRIFT = 3.0  # deviations of the motion that a steady change adds up to, from the clip's middle to its ends
# Radians that joints turn beside their mean, of somebody who stands; whoever moves may move by far more.
_LEAST_SWAY, _LEAST_ROOT_SWAY = 0.04, 0.05
_LEAST_SHIFT = 0.03  # metres, the same of the whole body
_TILT = 0.1  # radians, of the camera against the upright
_LANDMARK_OFFSET = 0.02  # metres from where a landmark should be on a body to where the network puts it
# Radians about an A-pose: the mean rotations of joints.
_MEAN_SPREADS = {
    "pelvis": 0.3, "spine": 0.08, "neck": 0.15, "head": 0.15, "collar": 0.08, "shoulder": 0.6, "elbow": 0.4,
    "wrist": 0.15, "hand": 0.02, "hip": 0.2, "knee": 0.2, "ankle": 0.15, "foot": 0.05,
}  # fmt: skip
_ARMS_DOWN = 0.85  # radians from a T-pose to an A-pose


class ClipUnknowns(NamedTuple):
    """All zero to begin with, each expected to be about one.

    Attributes:
        betas: Shape coefficients.
        mean: Of the joints' rotations.
        sway: Turns beside it, of each mode.
        place: Shift that all frames share.
        shift: Beside it, of each mode.
        offsets: From where the landmarks should be to where the network puts them.
        tilt: Of the camera against the upright.
        zoom: Of the camera, against the first guess of its focal length.
    """

    betas: Float[Tensor, "10"]
    mean: Float[Tensor, "24 3"]
    sway: Float[Tensor, "modes 24 3"]
    place: Float[Tensor, "3"]
    shift: Float[Tensor, "modes 3"]
    offsets: Float[Tensor, "33 3"]
    tilt: Float[Tensor, "3"]
    zoom: Float[Tensor, "1"]


class PosedClip(NamedTuple):
    """The body in all frames; the camera is the origin, x right, y down, z away.

    Attributes:
        betas: Shape coefficients.
        rotations: Of the joints relative to their parents.
        transl: As SMPL counts it, metres.
        transforms: From the T-pose to the posed body.
        seen: The same, but shallower by the zoom: what the first guess of the camera would have to see.
        joints: In the T-pose, metres.
        zoom: Focal length by its first guess.
    """

    betas: Float[Tensor, "10"]
    rotations: Float[Tensor, "frames 24 3 3"]
    transl: Float[Tensor, "frames 3"]
    transforms: Float[Tensor, "frames 24 4 4"]
    seen: Float[Tensor, "frames 24 4 4"]
    joints: Float[Tensor, "24 3"]
    zoom: Float[Tensor, "1"]


class ClipBody:
    """The body of a clip.

    Args:
        body: Any body in SMPL's format.
        landmarks: Where its landmarks are.
        orientation: First guess of the root's rotation in each frame.
        place: First guess of the pelvis, metres.
        times: Of the frames, seconds, ascending.
        zoom_spread: How little is known of the focal length: deviation of its logarithm; 0 where it is known.
    """

    def __init__(
        self,
        body: BodyModel,
        landmarks: BodyLandmarks,
        orientation: Float[Tensor, "frames 3 3"],
        place: Float[Tensor, "frames 3"],
        times: Float[Tensor, "frames"],
        zoom_spread: float = 0.0,
    ) -> None:
        self.body, self.landmarks = body, landmarks
        self.orientation, self.place = orientation, place.mean(dim=0)
        self.first_shift = place - self.place
        self.zoom_spread = zoom_spread
        self.modes = motion_modes(times).to(place)
        self.template = place.new_zeros(NUM_JOINTS, 3)
        self.template[JOINT_NAMES.index("left_shoulder"), 2] = -_ARMS_DOWN
        self.template[JOINT_NAMES.index("right_shoulder"), 2] = _ARMS_DOWN
        kinds = [name.removeprefix("left_").removeprefix("right_").rstrip("123") for name in JOINT_NAMES]
        self.spread = place.new_tensor([_MEAN_SPREADS[kind] for kind in kinds])[:, None]
        self.sway = place.new_tensor([_LEAST_ROOT_SWAY] + [_LEAST_SWAY] * (NUM_JOINTS - 1))[:, None]

    def start(self) -> ClipUnknowns:
        """Return the unknowns of the first guess."""
        zeros, modes = self.place.new_zeros, self.modes.shape[1]
        shift = torch.linalg.lstsq(self.modes, self.first_shift / _LEAST_SHIFT).solution.contiguous()
        return ClipUnknowns(
            betas=zeros(NUM_BETAS),
            mean=zeros(NUM_JOINTS, 3),
            sway=zeros(modes, NUM_JOINTS, 3),
            place=zeros(3),
            shift=shift,
            offsets=zeros(NUM_LANDMARKS, 3),
            tilt=zeros(3),
            zoom=zeros(1),
        )

    def turns(self, unknowns: ClipUnknowns) -> tuple[Float[Tensor, "24 3"], Float[Tensor, "frames 24 3"]]:
        """Rotation vectors of the mean, and those beside it, radians."""
        mean = self.template + self.spread * unknowns.mean
        return mean, self.sway * torch.tensordot(self.modes, unknowns.sway, dims=1)

    def posed(self, unknowns: ClipUnknowns) -> PosedClip:
        """Pose the body; differentiable."""
        mean, beside = self.turns(unknowns)
        zoom = torch.exp(self.zoom_spread * unknowns.zoom)
        root = self.orientation @ rotation_matrices(mean[:1])
        others = rotation_matrices(mean[1:]).expand(len(beside), -1, -1, -1)
        rotations = rotation_matrices(beside) @ torch.cat([root[:, None], others], dim=1)
        tilted = rotation_matrices(_TILT * unknowns.tilt) @ rotations[:, :1]
        rotations = torch.cat([tilted, rotations[:, 1:]], dim=1)
        joints = self.body.rest(unknowns.betas)[1]
        pelvis = self.place + unknowns.place + _LEAST_SHIFT * self.modes @ unknowns.shift
        # The farther away, the larger the zoom has to be: images hardly change.
        away = torch.cat([torch.ones_like(zoom), torch.ones_like(zoom), zoom])
        transl = pelvis * away - joints[0]
        transforms = skinning_transforms(rotations, transl, joints, self.body.ancestors)
        seen = transforms / torch.cat([away, torch.ones_like(zoom)])[:, None]
        return PosedClip(unknowns.betas, rotations, transl, transforms, seen, joints, zoom)

    def posed_landmarks(self, clip: PosedClip, offsets: Float[Tensor, "33 3"]) -> Float[Tensor, "frames 33 3"]:
        """Places of the landmarks as `PosedClip.seen`, metres, in the camera's axes.

        Args:
            clip: The posed body.
            offsets: Of `ClipUnknowns`; those of the right side mirror those of the left.
        """
        reflection = offsets.new_tensor([-1.0, 1.0, 1.0])
        offsets = (offsets + offsets[MIRRORED_LANDMARKS] * reflection) / 2**0.5
        rest = clip.joints[self.landmarks.bone] + self.landmarks.offset + _LANDMARK_OFFSET * offsets
        transforms = clip.seen[:, self.landmarks.bone]
        return torch.einsum("flrc,lc->flr", transforms[..., :3, :3], rest) + transforms[..., :3, 3]

    def prior(self, unknowns: ClipUnknowns) -> Float[Tensor, ""]:
        """Half the squares of the unknowns; of a joint's turns a logarithm, for who knows how much it moves."""
        betas, mean, sway, place, shift, offsets, tilt, zoom = unknowns
        plain = sum(0.5 * values.square().sum() for values in (betas, mean, 0.2 * place, offsets, tilt, zoom))
        moved = torch.cat([sway, shift[:, None]], dim=1)
        number = 3 * len(moved)
        return plain + 0.5 * number * torch.log1p(moved.square().sum(dim=(0, 2)) / number).sum()


def motion_modes(times: Float[Tensor, "frames"]) -> Float[Tensor, "frames modes"]:
    """Main modes of smooth motion of unit deviation: their products sum to its covariance.

    Args:
        times: Of the frames, seconds.
    """
    times = times.double()
    covariance = matern52((times[:, None] - times).abs() / MOTION_LENGTH)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0), vectors.flip(1)
    number = int((values.cumsum(0) < (1 - _NEGLECTED) * values.sum()).sum()) + 1
    ramp = (times - times.mean()) / (times[-1] - times[0]).clamp_min(1e-6) * 2 * _DRIFT
    return torch.cat([(vectors * values.clamp_min(0).sqrt())[:, :number], ramp[:, None]], dim=1)
