"""Terms of a clip's fit: how unlikely a posed body is, given landmarks and silhouettes, and people's joints.

All are negative log-probabilities. What neighbouring frames say is much the same, so frames that follow each other
closely count for less than one each.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.process.body_landmarks import LEFT_HIP, RIGHT_HIP
from instantavatar_ns.process.clip_body import ClipBody, ClipUnknowns, PosedClip
from instantavatar_ns.process.observations import Observations

_INDEPENDENT = 0.25  # seconds from which on errors of frames are independent
# Metres: deviations of the network's depth beside the hips', and of outlines from the body's and its thin clothes'.
_DEPTH, _OUTLINE, _CLOTHES = 0.5, 0.014, 0.005
_TAIL = 2.0  # deviations from which on a residual counts for less (Cauchy): swapped limbs, hair, hands
_IN_DEPTH = [0, *range(11, 17), *range(25, 29)]  # nose, shoulders, elbows, wrists, knees, ankles
# Joints that bend one way only: axis, and sign of the turn that they can make; and how stiffly they end, radians.
_HINGES = {"left_elbow": (1, -1.0), "right_elbow": (1, 1.0), "left_knee": (0, 1.0), "right_knee": (0, 1.0)}
_STIFFNESS = 0.05


class ClipTerms:
    """Terms that all stages share.

    Args:
        model: The body in all frames.
        seen: What to fit it to.
    """

    def __init__(self, model: ClipBody, seen: Observations) -> None:
        self.model = model

        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(model.place)

        self.pixels, self.center, self.focal = (
            tensor(seen.pixels),
            tensor(np.array(seen.camera.center)),
            seen.camera.focal,
        )
        self.weight = tensor(np.where(seen.found[:, None], seen.visibility**2, 0.0))
        self.depth = tensor(seen.world[:, _IN_DEPTH, 2] - seen.world[:, [LEFT_HIP, RIGHT_HIP], 2].mean(axis=1)[:, None])
        self.found = tensor(seen.found.astype(np.float64))[:, None]
        self.count = tensor((np.gradient(seen.times) / _INDEPENDENT).clip(0, 1))[:, None]
        numbers: dict[str, int] = {name: number for number, name in enumerate(JOINT_NAMES)}
        self.hinges = [(numbers[name], axis, sign) for name, (axis, sign) in _HINGES.items()]

    def of_landmarks(self, clip: PosedClip, unknowns: ClipUnknowns, deviation: float) -> Float[Tensor, ""]:
        """Sum over the landmarks, in the image and, weakly, in depth.

        Args:
            clip: The posed body.
            unknowns: That it was posed by.
            deviation: Of the landmarks in the image, as metres at the person's distance.
        """
        points = self.model.posed_landmarks(clip, unknowns.offsets)
        depth = points[..., 2:].clamp_min(0.1)
        residual = (points[..., :2] / depth * self.focal + self.center - self.pixels) * (depth.detach() / self.focal)
        image = self.weight * _cauchy((residual / deviation).square().sum(dim=-1))
        hips = points[:, [LEFT_HIP, RIGHT_HIP], 2].mean(dim=1, keepdim=True)
        beside = ((points[:, _IN_DEPTH, 2] - hips) * clip.zoom - self.depth) / _DEPTH
        return (self.count * image).sum() + (self.count * self.found * _cauchy(beside.square())).sum()

    def of_outlines(
        self, distances: Float[Tensor, "frames points"], patches: Float[Tensor, "frames 1"]
    ) -> Float[Tensor, ""]:
        """Sum over the points of outlines; the body's lies within the person's by the thickness of clothes."""
        return (self.count * patches * _cauchy(((distances + _CLOTHES) / _OUTLINE).square())).sum()

    def of_hinges(self, unknowns: ClipUnknowns) -> Float[Tensor, ""]:
        """Penalise elbows and knees that bend the wrong way."""
        mean, beside = self.model.turns(unknowns)
        turns = mean + beside
        wrong = torch.stack([(-sign * turns[:, joint, axis]).relu() for joint, axis, sign in self.hinges], dim=1)
        return 0.5 * (self.count * (wrong / _STIFFNESS).square()).sum()

    @torch.no_grad()
    def reprojection_errors(self, clip: PosedClip, unknowns: ClipUnknowns) -> Float[Tensor, "frames"]:
        """Mean distance of the landmarks in each frame, pixels, those that are seen counting most; NaN without any."""
        points = self.model.posed_landmarks(clip, unknowns.offsets)
        pixels = points[..., :2] / points[..., 2:].clamp_min(0.1) * self.focal + self.center
        distance = (pixels - self.pixels).norm(dim=-1)
        return (distance * self.weight).sum(dim=1) / self.weight.sum(dim=1)


def _cauchy(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Half the squares as long as they are small; then their logarithm."""
    return 0.5 * _TAIL**2 * torch.log1p(squares / _TAIL**2)
