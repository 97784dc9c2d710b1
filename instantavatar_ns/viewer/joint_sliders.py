"""Sliders for the main joints, and how a pose is bent by them."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.viewer.viewer_elements import ViewerDropdown, ViewerSlider
from scipy.spatial.transform import Rotation
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_transforms
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.viewer.folder import Button, Folder, finite

Vector = tuple[float, float, float]


class JointAxis(NamedTuple):
    """A way in which a joint turns.

    Attributes:
        label: What a user reads.
        joints: The joints that share the turn.
        axis: Axis in the T-pose, in which x points to the person's left, y up and z ahead; it moves with the bone.
        range: Smallest and largest angle, degrees.
    """

    label: str
    joints: tuple[str, ...]
    axis: Vector
    range: tuple[float, float]


_LEFT_ARM = (
    JointAxis("Shoulder, raise", ("shoulder",), (0, 0, 1), (-120, 120)),
    JointAxis("Shoulder, forward", ("shoulder",), (0, -1, 0), (-120, 120)),
    JointAxis("Shoulder, twist", ("shoulder",), (1, 0, 0), (-90, 90)),
    JointAxis("Elbow, bend", ("elbow",), (0, -1, 0), (-90, 150)),
    JointAxis("Wrist, raise", ("wrist",), (0, 0, 1), (-90, 90)),
    JointAxis("Wrist, forward", ("wrist",), (0, -1, 0), (-45, 45)),
    JointAxis("Wrist, twist", ("wrist",), (1, 0, 0), (-90, 90)),
)
_LEFT_LEG = (
    JointAxis("Hip, forward", ("hip",), (-1, 0, 0), (-90, 120)),
    JointAxis("Hip, sideways", ("hip",), (0, 0, 1), (-60, 90)),
    JointAxis("Hip, twist", ("hip",), (0, 1, 0), (-60, 60)),
    JointAxis("Knee, bend", ("knee",), (1, 0, 0), (-60, 150)),
    JointAxis("Ankle, raise", ("ankle",), (-1, 0, 0), (-60, 45)),
    JointAxis("Ankle, sideways", ("ankle",), (0, 0, 1), (-30, 30)),
)
_SPINE = ("spine1", "spine2", "spine3")
_TRUNK = tuple(
    JointAxis(f"{name}, {way}", joints, axis, (-limit, limit))
    for name, joints, limit in (("Spine", _SPINE, 90.0), ("Neck", ("neck",), 60.0), ("Head", ("head",), 60.0))
    for way, axis in (("forward", (1, 0, 0)), ("to the left", (0, 0, -1)), ("turn left", (0, 1, 0)))
)


def _on(side: str, axes: tuple[JointAxis, ...]) -> tuple[JointAxis, ...]:
    """A limb of the left, on its side; mirrored at the person's middle, an axis of rotation keeps its x."""
    sign = 1 if side == "left" else -1
    return tuple(
        JointAxis(label, tuple(f"{side}_{joint}" for joint in joints), (x, sign * y, sign * z), limits)
        for label, joints, (x, y, z), limits in axes
    )


LIMBS: dict[str, tuple[JointAxis, ...]] = {
    "left arm": _on("left", _LEFT_ARM),
    "right arm": _on("right", _LEFT_ARM),
    "left leg": _on("left", _LEFT_LEG),
    "right leg": _on("right", _LEFT_LEG),
    "spine, neck and head": _TRUNK,
}
_JOINT_INDEX = {name: index for index, name in enumerate(JOINT_NAMES)}
_ALL_AXES = tuple(axis for axes in LIMBS.values() for axis in axes)


class JointSliders(Folder):
    """One slider for each of `LIMBS`' axes, those of one limb in sight."""

    def __init__(self) -> None:
        super().__init__("Joints")
        first = next(iter(LIMBS))
        self._limb = self.add(ViewerDropdown("Limb", first, list(LIMBS), cb_hook=self._show_limb))
        self._sliders = {
            (limb, axis.label): self.add(
                ViewerSlider(axis.label, 0.0, *map(float, axis.range), step=1.0, visible=limb == first)
            )
            for limb, axes in LIMBS.items()
            for axis in axes
        }
        self.add(Button("Reset all joints", cb_hook=self.reset))

    def slider(self, limb: str, label: str) -> ViewerSlider:
        """The slider of a limb's axis."""
        return self._sliders[limb, label]

    def angles(self) -> tuple[float, ...]:
        """Angles in the order of `LIMBS`, degrees, within their ranges; () where all are zero."""
        angles = tuple(finite(slider.value, 0.0, slider.min, slider.max) for slider in self._sliders.values())
        return angles if any(angles) else ()

    def reset(self, _: object = None) -> None:
        """Turn all joints back."""
        for slider in self._sliders.values():
            if slider.value != 0.0:
                slider.value = 0.0

    def _show_limb(self, _: object) -> None:
        for (limb, _label), slider in self._sliders.items():
            slider.set_visible(limb == self._limb.value)


def joint_turns(angles: tuple[float, ...]) -> dict[int, Vector]:
    """Axis-angle rotations, radians, of the joints that the sliders' angles (degrees) turn.

    A joint's axes are summed, so that no order of the sliders matters; joints that share an axis share its angle.
    """
    turns: dict[int, Vector] = {}
    for angle, axis in zip(angles, _ALL_AXES, strict=True):
        if angle == 0.0:
            continue
        share = angle * pi / 180 / len(axis.joints)
        for joint in axis.joints:
            index = _JOINT_INDEX[joint]
            x, y, z = turns.get(index, (0.0, 0.0, 0.0))
            turns[index] = (x + share * axis.axis[0], y + share * axis.axis[1], z + share * axis.axis[2])
    return turns


@dataclass(frozen=True)
class Skeleton:
    """The canonical body's joints.

    Attributes:
        parents: Parent of each joint, -1 for the root, parents first.
        frames: Joint frames to root space in the canonical pose; their axes are the world's in the T-pose.
    """

    parents: tuple[int, ...]
    frames: Float[Tensor, "joints 4 4"]


def canonical_skeleton(body: BodyModel, betas: Float[Tensor, "10"]) -> Skeleton:
    """Joints of a body of given shape, in the canonical pose.

    Args:
        body: The person's body.
        betas: Shape coefficients; the result is on their device.
    """
    frames = torch.eye(4, device=betas.device).repeat(body.num_joints, 1, 1)
    frames[:, :3, 3] = body.rest(betas)[1]
    return Skeleton(tuple(body.parents.tolist()), canonical_transforms(body, betas) @ frames)


def bend(body: PosedBody, skeleton: Skeleton, turns: dict[int, Vector]) -> PosedBody:
    """Turn joints of a pose within their own frames: R_j becomes R_j exp(turn_j), and all that hangs on j follows.

    The joints' own rotations need not be known, they are what takes the parent's frame to the joint's.

    Args:
        body: Any pose.
        skeleton: The body's skeleton.
        turns: Axis-angle rotations by joint, radians; not of the root.
    """
    device = body.bone_transforms.device
    canonical = skeleton.frames.to(device)
    vectors = np.zeros((len(canonical), 3))
    for joint, turn in turns.items():
        vectors[joint] = turn
    rotations = torch.eye(4).repeat(len(canonical), 1, 1)
    rotations[:, :3, :3] = torch.from_numpy(Rotation.from_rotvec(vectors).as_matrix())
    frames = body.bone_transforms @ canonical
    parents = torch.tensor(skeleton.parents[1:], device=device)
    # inv_ex and not inv, which blocks the host to tell whether a matrix is singular; none is.
    local = torch.linalg.inv_ex(frames[parents]).inverse @ frames[1:] @ rotations[1:].to(device)
    turned = [frames[0]]
    for joint in range(1, len(canonical)):
        turned.append(turned[skeleton.parents[joint]] @ local[joint - 1])
    return PosedBody(body.world_to_root, torch.stack(turned) @ torch.linalg.inv_ex(canonical).inverse)
