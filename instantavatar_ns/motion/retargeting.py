"""Other skeletons' motions on SMPL's 24 joints.

A motion says how each bone is turned from the skeleton's rest pose; SMPL's rotations start from its T-pose. So between
the two lies one constant rotation a joint: that which brings the T-pose into the other's rest pose. For the trunk it
turns one upright frame into the other; for the bones of a limb, from hip or shoulder outwards, the shortest rotation
follows that brings each one's direction into the other's. Feet rest flat on the floor in both, however steep the bone
inside.

Some programs rest with all bones along one axis. Then the first frame serves as the rest pose, if it is a T-pose.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.model import JOINT_NAMES, NUM_BETAS, load_body_model
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.motion.bvh import BvhFile, read_bvh
from instantavatar_ns.motion.joint_names import find_joints
from instantavatar_ns.motion.readers import FileFacts, pose_sequence
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

_REST_ADVICE = "Export it with a T-pose or A-pose as its rest pose, or as its first frame"
_BONE_ENDS = {"hip": "knee", "knee": "ankle", "ankle": "foot", "shoulder": "elbow", "elbow": "wrist"}
_FOLLOWS = {"knee": "hip", "ankle": "knee", "foot": "ankle", "elbow": "shoulder", "wrist": "elbow"}
"""Whose turn in the rest pose a joint takes over before its own bone's is added. Toes and hands have no bone to go by
and are straight."""
_FARTHEST_REST = np.radians(120)
_FOOT_MOVED_ALONG = np.radians(1)
_T_POSE = {"hip": np.radians(20), "knee": np.radians(20), "shoulder": np.radians(75), "elbow": np.radians(75)}
"""Farthest from SMPL's T-pose that bones of a T-pose or A-pose point."""


def read_bvh_poses(path: Path) -> tuple[PoseSequence, FileFacts]:
    """Read a BVH file as SMPL poses.

    Lengths become metres by the legs' length, which is that of the free body: then the feet stay on the floor.

    Raises:
        InputError: The file is no BVH, is damaged, has not the joints of a person, or does not rest standing.
    """
    return retarget(path, read_bvh(path))


def retarget(path: Path, file: BvhFile) -> tuple[PoseSequence, FileFacts]:
    """Put a motion on SMPL's joints; see the module's docstring.

    Args:
        path: File of the motion, for messages only.
        file: Its content.

    Returns:
        As of `read_motion_file`; the vertical axis is that of the rest pose.

    Raises:
        InputError: The file has not the joints of a person, or does not rest standing.
    """
    sources = find_joints(path, file)
    smpl, parents = _smpl_skeleton()
    file = _with_rest_pose(path, file, sources)
    rest = {name: file.rest[joint] for name, joint in sources.items()}
    upright = _upright(path, rest)

    turns = np.zeros((len(file.rotations), len(JOINT_NAMES), 3, 3))
    offsets = _rest_rotations(path, upright, rest, smpl)
    for joint, name in enumerate(JOINT_NAMES):
        if name in sources:
            turns[:, joint] = file.rotations[:, sources[name]] @ offsets[name]
        else:
            # A joint that the file lacks does not bend.
            turns[:, joint] = turns[:, parents[joint]]
    local = turns.copy()
    local[:, 1:] = turns[:, parents[1:]].transpose(0, 1, 3, 2) @ turns[:, 1:]
    poses = Rotation.from_matrix(local.reshape(-1, 3, 3)).as_rotvec().reshape(len(local), -1)

    scale = _leg_length(smpl) / _leg_length(rest)
    hips = scale * file.positions[:, [sources["left_hip"], sources["right_hip"]]].mean(axis=1)
    # The hips fix the body's place: where in the pelvis its joint lies is a matter of convention.
    below = (smpl["left_hip"] + smpl["right_hip"]) / 2 - smpl["pelvis"]
    transl = hips - turns[:, 0] @ below - smpl["pelvis"]
    x, y, z = upright[:, 1].round()
    return pose_sequence(poses, transl), FileFacts(file.fps, (x, y, z))


def _with_rest_pose(path: Path, file: BvhFile, sources: dict[str, int]) -> BvhFile:
    """The motion from a rest pose that stands: its own, or its first frame if that is a T-pose and its own is none."""
    smpl, _ = _smpl_skeleton()
    rest = {name: file.rest[joint] for name, joint in sources.items()}
    try:
        _rest_rotations(path, _upright(path, rest), rest, smpl)
    except InputError:
        first = {name: file.positions[0, joint] for name, joint in sources.items()}
        if not _is_t_pose(path, first):
            raise
        notice(path, "Its rest pose is no T-pose or A-pose. Its first frame is one, and serves as the rest pose.")
        from_first = file.rotations @ file.rotations[0].transpose(0, 2, 1)
        return replace(file, rest=file.positions[0], rotations=from_first)
    return file


def _is_t_pose(path: Path, joints: dict[str, ndarray]) -> bool:
    """Find out if a person stands with straight legs, and arms to the side."""
    smpl, _ = _smpl_skeleton()
    try:
        upright = _upright(path, joints)
    except InputError:
        return False
    spine = joints["neck"] - (joints["left_hip"] + joints["right_hip"]) / 2
    bones = [(upright[:, 1], spine, _T_POSE["hip"])]
    for role, farthest in _T_POSE.items():
        for side in ("left", "right"):
            start, end = f"{side}_{role}", f"{side}_{_BONE_ENDS[role]}"
            bones.append((upright @ (smpl[end] - smpl[start]), joints[end] - joints[start], farthest))
    leans = [(_shortest_rotation(straight, bone), farthest) for straight, bone, farthest in bones]
    return all(lean is not None and lean.magnitude() < farthest for lean, farthest in leans)


@lru_cache(maxsize=1)
def _smpl_skeleton() -> tuple[dict[str, ndarray], ndarray]:
    """Joints of the free body's T-pose, metres, by name, and the parents of all."""
    body = load_body_model("free")
    joints = body.rest(torch.zeros(NUM_BETAS))[1].double().numpy()
    return dict(zip(JOINT_NAMES, joints, strict=True)), body.parents.numpy()


def _upright(path: Path, joints: dict[str, ndarray]) -> Float[ndarray, "3 3"]:
    """The rotation that brings SMPL's trunk into that of a standing person."""
    return _trunk_frame(path, joints) @ _trunk_frame(path, _smpl_skeleton()[0]).T


def _trunk_frame(path: Path, joints: dict[str, ndarray]) -> Float[ndarray, "3 3"]:
    """Columns: left, up and ahead of a standing person.

    Up is the axis nearest to the way from hips to neck: how exactly the neck lies above the hips differs from skeleton
    to skeleton, though all stand straight.
    """
    left = joints["left_hip"] - joints["right_hip"]
    spine = joints["neck"] - (joints["left_hip"] + joints["right_hip"]) / 2
    axis = int(np.abs(spine).argmax())
    up = np.sign(spine[axis]) * np.eye(3)[axis]
    ahead = np.cross(left, up)
    size = np.linalg.norm(ahead)
    if not size > 0.7 * np.linalg.norm(left):
        message = "expected a rest pose that stands upright, found hips in line with the spine"
        raise InputError(path, message, _REST_ADVICE)
    return np.stack([np.cross(up, ahead / size), up, ahead / size], axis=1)


def _rest_rotations(
    path: Path, upright: Float[ndarray, "3 3"], rest: dict[str, ndarray], smpl: dict[str, ndarray]
) -> dict[str, Float[ndarray, "3 3"]]:
    """Rotations that bring each joint from SMPL's T-pose into the file's rest pose."""
    offsets = {}
    for name in JOINT_NAMES:
        side, _, role = name.partition("_")
        offsets[name] = offsets.get(f"{side}_{_FOLLOWS.get(role)}", upright)
        end = f"{side}_{_BONE_ENDS.get(role)}"
        if end not in rest:
            # Without toes nothing tells where a foot points.
            offsets[name] = upright if role == "ankle" else offsets[name]
            continue
        bone, target = smpl[end] - smpl[name], rest[end] - rest[name]
        turn = _shortest_rotation(offsets[name] @ bone, target)
        if turn is None or turn.magnitude() > _FARTHEST_REST:
            found = "no length" if turn is None else "quite another direction"
            message = f"expected a rest pose near a T-pose or A-pose, found {found} from {name} to {end}"
            raise InputError(path, message, _REST_ADVICE)
        # How steep the bone to the toes is differs with where a skeleton has its ankle and toes. Only if it points as
        # SMPL's would, turned with the leg, the foot has left the floor with the leg.
        if role == "ankle" and turn.magnitude() > _FOOT_MOVED_ALONG:
            offsets[name] = _heading(upright, bone, target)
        else:
            offsets[name] = turn.as_matrix() @ offsets[name]
    return offsets


def _heading(
    upright: Float[ndarray, "3 3"], bone: Float[ndarray, "3"], target: Float[ndarray, "3"]
) -> Float[ndarray, "3 3"]:
    """The upright frame, turned about its vertical so that a bone and its target point the same way from above."""
    seen = upright.T @ target
    angle = np.arctan2(seen[0], seen[2]) - np.arctan2(bone[0], bone[2])
    return upright @ Rotation.from_rotvec([0.0, angle, 0.0]).as_matrix()


def _shortest_rotation(source: Float[ndarray, "3"], target: Float[ndarray, "3"]) -> Rotation | None:
    """The smallest rotation from one direction to another; None where one has no length."""
    if not (source.any() and target.any()):
        return None
    return Rotation.align_vectors(target, source)[0]


def _leg_length(joints: dict[str, ndarray]) -> float:
    """Mean length of the legs from hip to ankle."""
    bones = [
        (f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in (("hip", "knee"), ("knee", "ankle"))
    ]
    return sum(float(np.linalg.norm(joints[b] - joints[a])) for a, b in bones) / 2
