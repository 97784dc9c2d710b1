"""Poses of a subject's frames, as every data format yields them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PoseSequence:
    """Parameters of a body model in a sequence of frames of one person, in the dataset's world.

    Attributes:
        betas: Shape coefficients, shared by all frames.
        global_orient: Axis-angle rotation of the root, radians.
        body_pose: Axis-angle rotations of the other joints relative to their parents, radians.
        transl: Translation, metres.
    """

    betas: Float[Tensor, "10"]
    global_orient: Float[Tensor, "frames 3"]
    body_pose: Float[Tensor, "frames angles"]
    transl: Float[Tensor, "frames 3"]

    def __len__(self) -> int:
        return len(self.transl)

    @property
    def axis_angles(self) -> Float[Tensor, "frames joints 3"]:
        """Axis-angle rotations of all joints relative to their parents, the root first, radians."""
        return torch.cat([self.global_orient, self.body_pose], dim=1).view(len(self), -1, 3)

    def concatenate(self, other: PoseSequence) -> PoseSequence:
        """Return this sequence followed by `other`; the betas stay this one's."""
        return PoseSequence(
            self.betas,
            torch.cat([self.global_orient, other.global_orient]),
            torch.cat([self.body_pose, other.body_pose]),
            torch.cat([self.transl, other.transl]),
        )

    def rows(self, rows: slice | list[int]) -> PoseSequence:
        """Return some of the frames."""
        return PoseSequence(self.betas, self.global_orient[rows], self.body_pose[rows], self.transl[rows])
