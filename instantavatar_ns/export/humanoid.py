"""The avatar as a humanoid: its joints under the names of VRM 1.0, and the T-pose that this standard rests in.

In that T-pose legs and arms are straight, the legs vertical and the arms level along x; feet point along +z, the person
faces +z, and stands on the floor. No joint is turned in it, so that every program agrees on what a rotation means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from instantavatar_ns.export.gltf import SkinnedMesh
from instantavatar_ns.export.rigged import RiggedAvatar, joint_transforms
from instantavatar_ns.export.skeleton import Clip, Skeleton
from instantavatar_ns.utils.errors import InputError

_TRUNK = {
    "pelvis": "hips",
    "spine1": "spine",
    "spine2": "chest",
    "spine3": "upperChest",
    "neck": "neck",
    "head": "head",
    "jaw": "jaw",
}
_SIDE = {
    "eye": "Eye",
    "eye_smplhf": "Eye",
    "collar": "Shoulder",
    "shoulder": "UpperArm",
    "elbow": "LowerArm",
    "wrist": "Hand",
    "hip": "UpperLeg",
    "knee": "LowerLeg",
    "ankle": "Foot",
    "foot": "Toes",
    **{f"thumb{joint}": f"Thumb{part}" for joint, part in enumerate(("Metacarpal", "Proximal", "Distal"), 1)},
    **{
        f"{finger}{joint}": f"{name}{part}"
        for finger, name in (("index", "Index"), ("middle", "Middle"), ("ring", "Ring"), ("pinky", "Little"))
        for joint, part in enumerate(("Proximal", "Intermediate", "Distal"), 1)
    },
}
"""VRM's names of human bones by those of the joints of SMPL, SMPL-H and SMPL-X, without their sides."""
_SIDES = {"left": 1.0, "right": -1.0}
REQUIRED_BONES = (
    "hips",
    "spine",
    "head",
    *(f"{side}{part}" for side in _SIDES for part in ("UpperLeg", "LowerLeg", "Foot", "UpperArm", "LowerArm", "Hand")),
)
_NEEDS = {"upperChest": "chest"} | {
    f"{side}{finger}{part}": f"{side}{finger}{below}"
    for side in _SIDES
    for finger, parts in {
        "Thumb": ("Metacarpal", "Proximal", "Distal"),
        **dict.fromkeys(("Index", "Middle", "Ring", "Little"), ("Proximal", "Intermediate", "Distal")),
    }.items()
    for below, part in pairwise(parts)
}
"""Bones that there may be only together with another."""
_LIMBS = {"UpperLeg": "LowerLeg", "LowerLeg": "Foot", "UpperArm": "LowerArm", "LowerArm": "Hand"}
"""Bones of a straight limb, and where each ends."""


def humanoid_bones(joint_names: tuple[str, ...]) -> dict[str, int]:
    """Joint of each of VRM's human bones that a body has.

    Args:
        joint_names: The body model's names, those of SMPL, SMPL-H or SMPL-X.

    Raises:
        InputError: A bone that VRM requires is missing.
    """
    names = _TRUNK | {f"{side}_{joint}": side + bone for side in _SIDES for joint, bone in _SIDE.items()}
    bones = {names[joint]: index for index, joint in enumerate(joint_names) if joint in names}
    missing = [bone for bone in REQUIRED_BONES if bone not in bones]
    if missing:
        found = ", ".join(joint_names[:8]) + (", ..." if len(joint_names) > 8 else "")
        message = f"expected a human body, found no joint for VRM's bones {', '.join(missing)} among {found}"
        raise InputError("--format vrm", message, "Use --format glb, which takes any skeleton")
    for bone, below in _NEEDS.items():  # in order along each finger
        if below not in bones:
            bones.pop(bone, None)
    return bones


@dataclass(frozen=True)
class Humanoid:
    """An avatar that rests in VRM's T-pose.

    Attributes:
        avatar: Bound in that pose, no joint turned.
        bones: Joint of each human bone.
        turns: World rotations of the joints into this pose, from the body model's, in which none is turned either.
    """

    avatar: RiggedAvatar
    bones: dict[str, int]
    turns: Float[ndarray, "joints 3 3"]

    @property
    def rest(self) -> Clip:
        """The T-pose as a clip of one frame."""
        return _pose("rest", self.avatar.skeleton, np.tile(np.eye(3), (len(self.turns), 1, 1)))

    def clip(self, clip: Clip) -> Clip:
        """A clip as rotations from this T-pose.

        Args:
            clip: Rotations from the body model's T-pose.
        """
        rotations = np.empty_like(clip.rotations)
        for joint, parent in enumerate(self.avatar.skeleton.parents):
            above = Rotation.from_matrix(np.eye(3) if parent < 0 else self.turns[parent])
            # Constant factors leave each quaternion as near to the one before as it was.
            turned = (
                above * Rotation.from_quat(clip.rotations[:, joint]) * Rotation.from_matrix(self.turns[joint]).inv()
            )
            rotations[:, joint] = turned.as_quat()
        return replace(clip, rotations=rotations)


def humanoid_of(avatar: RiggedAvatar) -> Humanoid:
    """Bring an avatar into VRM's T-pose and bind it there.

    Args:
        avatar: Bound in any pose.

    Raises:
        InputError: The body lacks a bone that VRM requires.
    """
    bones, skeleton = humanoid_bones(avatar.joint_names), avatar.skeleton
    turns = t_pose_turns(skeleton, avatar.joint_names, bones)
    parents = np.stack([np.eye(3) if parent < 0 else turns[parent] for parent in skeleton.parents])
    pose = _pose("t-pose", skeleton, parents.transpose(0, 2, 1) @ turns)
    transforms = joint_transforms(skeleton, replace(pose, root=np.zeros_like(pose.root)))[0]
    mesh, joints = _bound_in(avatar, transforms), transforms[:, :3, 3]
    to_floor = np.array([0.0, -mesh.positions[:, 1].min(), 0.0])
    mesh, joints = replace(mesh, positions=mesh.positions + to_floor.astype(np.float32)), joints + to_floor
    offsets, inverse_bind = joints.copy(), np.tile(np.eye(4), (len(joints), 1, 1))
    offsets[1:] -= joints[skeleton.parents[1:]]
    inverse_bind[:, :3, 3] = -joints
    rested = replace(avatar, mesh=mesh, skeleton=replace(skeleton, offsets=offsets, inverse_bind=inverse_bind))
    return Humanoid(rested, bones, turns)


def _bound_in(avatar: RiggedAvatar, transforms: Float[ndarray, "joints 4 4"]) -> SkinnedMesh:
    """The mesh in another pose, from which skinning brings it back exactly as it was.

    Skinning there and on again would blend twice. Here what is exact is the pose in which the avatar was learnt, with
    lowered arms, which most motions are nearer to than to a T-pose.

    Args:
        avatar: Bound in the pose in which it was learnt.
        transforms: Of the joints in the other pose.
    """
    mesh = avatar.mesh
    back = np.linalg.inv(transforms @ avatar.skeleton.inverse_bind)[:, :3]
    blended = np.einsum("vk,vkrc->vrc", mesh.weights.astype(np.float64), back[mesh.joints])
    linear, shift = blended[..., :3], blended[..., 3]
    positions = np.linalg.solve(linear, (mesh.positions - shift)[..., None])[..., 0]
    normals = np.einsum("vrc,vr->vc", linear, mesh.normals)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    return replace(mesh, positions=positions.astype(np.float32), normals=normals.astype(np.float32))


def t_pose_turns(
    skeleton: Skeleton, joint_names: tuple[str, ...], bones: dict[str, int]
) -> Float[ndarray, "joints 3 3"]:
    """World rotations that bring joints from the body model's T-pose into VRM's; trunk and head are left as they are.

    Args:
        skeleton: Joints of a body that faces +z in its T-pose, y up.
        joint_names: The body model's names.
        bones: Joint of each human bone.
    """
    still = _pose("still", skeleton, np.tile(np.eye(3), (len(skeleton.names), 1, 1)))
    joints = joint_transforms(skeleton, still)[0, :, :3, 3]
    straight: dict[int, tuple[int, Float[ndarray, "3"]]] = {}
    feet: dict[int, int] = {}
    for side, sign in _SIDES.items():
        # SMPL has one joint within each hand, SMPL-X those of the fingers.
        ends = {bone: bones[side + end] for bone, end in _LIMBS.items()}
        if f"{side}MiddleProximal" in bones:
            ends["Hand"] = bones[f"{side}MiddleProximal"]
        elif f"{side}_hand" in joint_names:
            ends["Hand"] = joint_names.index(f"{side}_hand")
        for bone, end in ends.items():
            straight[bones[side + bone]] = end, np.array([0, -1, 0] if "Leg" in bone else [sign, 0, 0], float)
        if f"{side}Toes" in bones:
            feet[bones[f"{side}Foot"]] = bones[f"{side}Toes"]
    turns = np.tile(np.eye(3), (len(joints), 1, 1))
    for joint, parent in enumerate(skeleton.parents):
        if parent >= 0:
            turns[joint] = turns[parent]
        if joint in straight:
            end, direction = straight[joint]
            turn = Rotation.align_vectors(direction, turns[joint] @ (joints[end] - joints[joint]))[0]
            turns[joint] = turn.as_matrix() @ turns[joint]
        elif joint in feet:
            # Soles lie flat in the body model's T-pose, which turns about the vertical alone keep.
            ahead = joints[feet[joint]] - joints[joint]
            turns[joint] = Rotation.from_rotvec([0.0, -np.arctan2(ahead[0], ahead[2]), 0.0]).as_matrix()
    return turns


def _pose(name: str, skeleton: Skeleton, rotations: Float[ndarray, "joints 3 3"]) -> Clip:
    """A clip of one frame, of rotations relative to the parents."""
    quaternions = Rotation.from_matrix(rotations).as_quat().astype(np.float32)[None]
    return Clip(name, np.zeros(1, np.float32), quaternions, skeleton.offsets[:1].astype(np.float32))
