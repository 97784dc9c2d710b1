"""BVH files written from SMPL motions through forward kinematics, as other programs would export them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.model import JOINT_NAMES, load_body_model

_MIXAMO = (
    "Hips LeftUpLeg RightUpLeg Spine LeftLeg RightLeg Spine1 LeftFoot RightFoot Spine2 LeftToeBase RightToeBase Neck "
    "LeftShoulder RightShoulder Head LeftArm RightArm LeftForeArm RightForeArm LeftHand RightHand LeftHandMiddle1 "
    "RightHandMiddle1"
)
_DAZ = (
    "hip lThigh rThigh abdomen lShin rShin abdomen2 lFoot rFoot chest lToe rToe neck lCollar rCollar head lShldr "
    "rShldr lForeArm rForeArm lHand rHand lMid1 rMid1"
)
MIXAMO = dict(zip(JOINT_NAMES, _MIXAMO.split(), strict=True))
CMU = {**MIXAMO, "spine1": "LowerBack", "spine2": "Spine", "spine3": "Spine1"}
DAZ = dict(zip(JOINT_NAMES, _DAZ.split(), strict=True))


def _renamed(names: str, sides: tuple[str, str]) -> dict[str, str]:
    """Names of SMPL's joints from those of trunk and limbs, `{}` standing for a side."""
    trunk = dict(zip("pelvis spine1 spine2 spine3 neck head".split(), names.split()[:6], strict=True))
    limbs = dict(zip("hip knee ankle foot collar shoulder elbow wrist".split(), names.split()[6:], strict=True))
    hands = {"left_hand": "EndL", "right_hand": "EndR"}
    sided = {
        f"{side}_{joint}": name.format(mark)
        for joint, name in limbs.items()
        for side, mark in zip(("left", "right"), sides, strict=True)
    }
    return {**trunk, **sided, **hands}


_LONG, _LETTERS, _SMALL = ("Left", "Right"), ("L", "R"), ("l", "r")
PROGRAMS = {
    "rokoko": _renamed(
        "Hips Spine1 Spine2 Spine3 Neck Head {}Thigh {}Shin {}Foot {}Toe {}Shoulder {}Arm {}ForeArm {}Hand", _LONG
    ),
    "xsens mvn": _renamed(
        "Hips L5 T12 T8 Neck Head {}UpperLeg {}LowerLeg {}Foot {}Toe {}Shoulder {}UpperArm {}Forearm {}Hand", _LONG
    ),
    "xsens bvh": _renamed(
        "Hips Chest Chest2 Chest3 Neck Head {}Hip {}Knee {}Ankle {}Toe {}Collar {}Shoulder {}Elbow {}Wrist", _LONG
    ),
    "unreal": _renamed(
        "pelvis spine_01 spine_02 spine_03 neck_01 head thigh_{} calf_{} foot_{} ball_{} clavicle_{} upperarm_{} "
        "lowerarm_{} hand_{}",
        _SMALL,
    ),
    "3ds max": {
        joint: name.replace(".", " ")
        for joint, name in _renamed(
            "Bip01 Bip01.Spine Bip01.Spine1 Bip01.Spine2 Bip01.Neck Bip01.Head Bip01.{}.Thigh Bip01.{}.Calf "
            "Bip01.{}.Foot Bip01.{}.Toe0 Bip01.{}.Clavicle Bip01.{}.UpperArm Bip01.{}.Forearm Bip01.{}.Hand",
            _LETTERS,
        ).items()
    },
    "rigify": _renamed(
        "hips spine spine.001 chest neck head thigh.{} shin.{} foot.{} toe.{} shoulder.{} upper_arm.{} forearm.{} "
        "hand.{}",
        _LETTERS,
    ),
    "bandai namco": _renamed(
        "Hips Spine Spine1 Chest Neck Head UpperLeg_{} LowerLeg_{} Foot_{} Toes_{} Shoulder_{} UpperArm_{} "
        "LowerArm_{} Hand_{}",
        _LETTERS,
    ),
    "vrm": _renamed(
        "J_Bip_C_Hips J_Bip_C_Spine J_Bip_C_Chest J_Bip_C_UpperChest J_Bip_C_Neck J_Bip_C_Head J_Bip_{}_UpperLeg "
        "J_Bip_{}_LowerLeg J_Bip_{}_Foot J_Bip_{}_ToeBase J_Bip_{}_Shoulder J_Bip_{}_UpperArm J_Bip_{}_LowerArm "
        "J_Bip_{}_Hand",
        _LETTERS,
    ),
    "soma": _renamed(
        "Hips Spine1 Spine2 Chest Neck1 Head {}Leg {}Shin {}Foot {}ToeBase {}Shoulder {}Arm {}ForeArm {}Hand", _LONG
    ),
}
"""Names of the joints in other programs' files."""
Y_UP = np.eye(3)
Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_BODY = load_body_model("free")
_JOINTS = _BODY.rest(torch.zeros(10))[1].double().numpy()
PARENTS = _BODY.parents.tolist()


@dataclass(frozen=True)
class BvhStyle:
    """Style in which a program writes its BVH files.

    Attributes:
        names: Its names of SMPL's joints.
        rest: Rest pose of its skeleton, SMPL's rotations [72].
        prefix: Before each name.
        axes: Turns y up, z ahead into the axes of the motion.
        rest_axes: The same for the rest pose.
        unit: Lengths per metre.
        order: Order of the rotation channels.
        all_positions: Six channels for each joint, not only for the root.
        reverse: Siblings from the last to the first.
    """

    names: dict[str, str]
    rest: np.ndarray
    prefix: str = ""
    axes: np.ndarray = field(default_factory=lambda: Y_UP)
    rest_axes: np.ndarray = field(default_factory=lambda: Y_UP)
    unit: float = 1.0
    order: str = "ZXY"
    all_positions: bool = False
    reverse: bool = False


def forward(poses: np.ndarray, transl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World rotations [T, 24, 3, 3] and positions [T, 24, 3] of the free body's joints; `poses` are [T, 72]."""
    local = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    turns, places = local.copy(), np.zeros((len(poses), 24, 3))
    places[:, 0] = transl + _JOINTS[0]
    for joint, parent in list(enumerate(PARENTS))[1:]:
        turns[:, joint] = turns[:, parent] @ local[:, joint]
        places[:, joint] = places[:, parent] + turns[:, parent] @ (_JOINTS[joint] - _JOINTS[parent])
    return turns, places


def write_bvh(path: Path, poses: np.ndarray, transl: np.ndarray, fps: float, style: BvhStyle) -> None:
    """Write a motion [T, 72], [T, 3]."""
    turns, places = forward(poses, transl)
    rest_turns, rest_places = (values[0] for values in forward(style.rest[None], np.zeros((1, 3))))
    world = style.axes @ turns @ (style.rest_axes @ rest_turns).transpose(0, 2, 1)
    offsets = style.unit * rest_places @ style.rest_axes.T
    lines, columns = ["HIERARCHY"], []

    def write_joint(joint: int, depth: int) -> None:
        pad, parent = "\t" * depth, PARENTS[joint]
        offset = np.zeros(3) if parent < 0 else offsets[joint] - offsets[parent]
        local = world[:, joint] if parent < 0 else world[:, parent].transpose(0, 2, 1) @ world[:, joint]
        channels = [f"{axis}rotation" for axis in style.order]
        if parent < 0 or style.all_positions:
            channels = ["Xposition", "Yposition", "Zposition", *channels]
            root = style.unit * places[:, 0] @ style.axes.T
            columns.append(root if parent < 0 else np.tile(offset, (len(poses), 1)))
        columns.append(Rotation.from_matrix(local).as_euler(style.order, degrees=True))
        lines.append(f"{pad}{'ROOT' if parent < 0 else 'JOINT'} {style.prefix}{style.names[JOINT_NAMES[joint]]}")
        lines.append(pad + "{")
        lines.append(f"{pad}\tOFFSET\t" + "\t".join(f"{value:.6f}" for value in offset))
        lines.append(f"{pad}\tCHANNELS {len(channels)} " + " ".join(channels))
        children = [child for child, above in enumerate(PARENTS) if above == joint]
        for child in reversed(children) if style.reverse else children:
            write_joint(child, depth + 1)
        if not children:
            lines.extend([f"{pad}\tEnd Site", pad + "\t{", f"{pad}\t\tOFFSET 0.0 1.0 0.0", pad + "\t}"])
        lines.append(pad + "}")

    write_joint(0, 0)
    lines += ["MOTION", f"Frames:\t{len(poses)}", f"Frame Time: {1 / fps:.7f}"]
    lines += [" ".join(f"{value:.6f}" for value in row) for row in np.concatenate(columns, axis=1)]
    path.write_text("\r\n".join(lines) + "\r\n")
