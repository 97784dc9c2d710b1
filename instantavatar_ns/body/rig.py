"""Rig of a body model: what its file does not say about its joints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Rig:
    """Joints of a kind of body model, in the order of its files.

    Attributes:
        joint_names: One a joint, the root first.
        parents: Index of each joint's parent, before it in the order; -1 for the root.
        mirror_images: Index of each joint's counterpart on the other side of the body; its own in the middle.
        canonical_pose: Axis-angle rotations, radians, by joint; all other joints, and the root, are not turned. It
            parts the limbs, so that each point of canonical space belongs to one of them.
    """

    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    mirror_images: tuple[int, ...]
    canonical_pose: Mapping[str, tuple[float, float, float]]

    @property
    def num_joints(self) -> int:
        """Joints, the root included."""
        return len(self.joint_names)
