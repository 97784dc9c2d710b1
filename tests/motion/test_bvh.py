"""BVH files pose SMPL's skeleton as the motion that they were written from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.model import JOINT_NAMES, load_body_model
from instantavatar_ns.demo.motion import dance_poses
from instantavatar_ns.motion.bvh import read_bvh
from instantavatar_ns.motion.motion import load_motion
from instantavatar_ns.utils.errors import InputError
from tests.motion.bvh_files import CMU, DAZ, MIXAMO, PARENTS, PROGRAMS, Z_UP, BvhStyle, forward, write_bvh

JOINT = {name: index for index, name in enumerate(JOINT_NAMES)}


def rest_pose(arms, legs):
    """Arms and legs away from the T-pose, radians about the forward axis, with bent elbows and flat feet.

    Arms at 0.8 are an A-pose's.
    """
    pose = np.zeros((24, 3))
    pose[JOINT["left_shoulder"], 2], pose[JOINT["right_shoulder"], 2] = -arms, arms
    pose[JOINT["left_hip"], 2], pose[JOINT["right_hip"], 2] = legs, -legs
    pose[JOINT["left_ankle"], 2], pose[JOINT["right_ankle"], 2] = -legs, legs
    pose[JOINT["left_elbow"], 1], pose[JOINT["right_elbow"], 1] = -0.2, 0.2
    return pose.ravel()


def dance(frames=12):
    """A dance that turns and travels, its hands straight: poses (T, 72), translations (T, 3), y up."""
    poses, transl = dance_poses(np.linspace(0.0, 2.0, frames))
    poses[:, JOINT["left_wrist"]] = poses[:, JOINT["right_wrist"]] = 0.0
    turn = Rotation.from_rotvec(np.outer(np.linspace(0.0, 2.0, frames), [0.0, 1.0, 0.0]))
    upright = Rotation.from_rotvec([np.pi, 0.0, 0.0]) * Rotation.from_rotvec(poses[:, 0])
    poses[:, 0] = (turn * upright).as_rotvec()
    return poses.reshape(frames, 72), transl + np.linspace([0.0, 0.9, 0.0], [1.0, 0.95, 0.5], frames)


def bones(places):
    """Unit directions from each joint's parent."""
    vectors = places[:, 1:] - places[:, PARENTS[1:]]
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def degrees_apart(directions, others):
    return np.degrees(np.arccos(np.clip((directions * others).sum(axis=-1), -1.0, 1.0)))


A_POSE = rest_pose(0.8, 0.15)
STYLES = {
    "mixamo": BvhStyle(MIXAMO, np.zeros(72), "mixamorig:", unit=100.0),
    "mixamo, all positions": BvhStyle(MIXAMO, A_POSE, "mixamorig1:", all_positions=True),
    "cmu, inches": BvhStyle(CMU, rest_pose(0.9, 0.3), unit=39.37, order="ZYX", reverse=True),
    "z up, centimetres": BvhStyle(CMU, A_POSE, "", Z_UP, Z_UP, unit=100.0, order="YXZ", reverse=True),
    "z up, rest pose y up": BvhStyle(MIXAMO, rest_pose(1.2, 0.0), axes=Z_UP, order="XYZ"),
    "daz": BvhStyle(DAZ, rest_pose(0.3, 0.0), order="XYZ"),
    "smpl": BvhStyle({name: name for name in JOINT_NAMES}, A_POSE),
    **{name: BvhStyle(names, A_POSE, unit=100.0) for name, names in PROGRAMS.items()},
}


@pytest.mark.parametrize("name", STYLES)
def test_known_motion_is_read_back(tmp_path, name):
    """Within 1 cm and 2 degrees, whatever the file's rest pose, units, axes and order."""
    style, (poses, transl) = STYLES[name], dance()
    write_bvh(tmp_path / "dance.bvh", poses, transl, 120.0, style)
    motion = load_motion(tmp_path / "dance.bvh")
    assert motion.fps == 120.0
    np.testing.assert_array_equal(motion.up.numpy(), style.axes[:, 1])
    true_turns, true_places = forward(poses, transl)
    true_turns, true_places = style.axes @ true_turns, true_places @ style.axes.T
    read = np.concatenate([motion.global_orient, motion.body_pose], axis=1)
    turns, places = forward(read, motion.transl.numpy())
    assert np.linalg.norm(places - true_places, axis=-1).max() < 0.01
    assert degrees_apart(bones(places), bones(true_places)).max() < 2.0
    # Bones could point right and yet be twisted about themselves.
    apart = Rotation.from_matrix((true_turns.swapaxes(-1, -2) @ turns).reshape(-1, 3, 3)).magnitude()
    assert np.degrees(apart).max() < 2.0


# In the manner of the CMU database: joints without length, a shape unlike SMPL's, legs apart, thumbs.
CMU_SKELETON = {
    "Hips": (None, (0.0, 0.0, 0.0)),
    "LHipJoint": ("Hips", (0.0, 0.0, 0.0)),
    "LeftUpLeg": ("LHipJoint", (1.4, -1.8, 0.8)),
    "LeftLeg": ("LeftUpLeg", (2.4, -6.7, 0.0)),
    "LeftFoot": ("LeftLeg", (2.5, -6.8, 0.0)),
    "LeftToeBase": ("LeftFoot", (0.2, -0.5, 2.1)),
    "RHipJoint": ("Hips", (0.0, 0.0, 0.0)),
    "RightUpLeg": ("RHipJoint", (-1.3, -1.8, 0.8)),
    "RightLeg": ("RightUpLeg", (-2.4, -6.6, 0.0)),
    "RightFoot": ("RightLeg", (-2.5, -6.8, 0.0)),
    "RightToeBase": ("RightFoot", (-0.2, -0.6, 2.1)),
    "LowerBack": ("Hips", (0.0, 0.0, 0.0)),
    "Spine": ("LowerBack", (0.0, 2.0, -0.2)),
    "Spine1": ("Spine", (0.0, 2.0, -0.1)),
    "Neck": ("Spine1", (0.0, 0.0, 0.0)),
    "Neck1": ("Neck", (0.0, 1.6, 0.2)),
    "Head": ("Neck1", (0.1, 1.6, -0.2)),
    "LeftShoulder": ("Spine1", (0.0, 0.0, 0.0)),
    "LeftArm": ("LeftShoulder", (3.2, 1.0, -0.1)),
    "LeftForeArm": ("LeftArm", (4.9, 0.0, 0.0)),
    "LeftHand": ("LeftForeArm", (3.4, 0.0, 0.0)),
    "LThumb": ("LeftHand", (0.0, 0.0, 0.5)),
    "RightShoulder": ("Spine1", (0.0, 0.0, 0.0)),
    "RightArm": ("RightShoulder", (-3.1, 1.1, -0.1)),
    "RightForeArm": ("RightArm", (-5.1, 0.0, 0.0)),
    "RightHand": ("RightForeArm", (-3.5, 0.0, 0.0)),
    "RThumb": ("RightHand", (0.0, 0.0, 0.5)),
}
LIMBS = {
    "left_knee": ("LeftUpLeg", "LeftLeg"),
    "left_ankle": ("LeftLeg", "LeftFoot"),
    "right_knee": ("RightUpLeg", "RightLeg"),
    "right_ankle": ("RightLeg", "RightFoot"),
    "left_elbow": ("LeftArm", "LeftForeArm"),
    "left_wrist": ("LeftForeArm", "LeftHand"),
    "right_elbow": ("RightArm", "RightForeArm"),
    "right_wrist": ("RightForeArm", "RightHand"),
}
"""Bones of the skeleton that are SMPL's up to the joint."""


def write_skeleton(path, skeleton, angles, heights):
    """A BVH file of the joints' Z, Y and X angles [T, joints, 3], degrees in the order of the skeleton."""
    lines = ["HIERARCHY"]

    def write_joint(name):
        parent, offset = skeleton[name]
        channels = "3 Zrotation Yrotation Xrotation"
        if parent is None:
            channels = "6 Xposition Yposition Zposition" + channels[1:]
        lines.extend([f"{'JOINT' if parent else 'ROOT'} {name} {{", "OFFSET " + " ".join(map(str, offset))])
        lines.append("CHANNELS " + channels)
        children = [child for child, (above, _) in skeleton.items() if above == name]
        for child in children:
            write_joint(child)
        lines.extend([] if children else ["End Site", "{", "OFFSET 0 0 1", "}"])
        lines.append("}")

    write_joint(next(iter(skeleton)))
    lines += ["MOTION", f"Frames: {len(angles)}", "Frame Time: .0083333"]
    lines += [
        " ".join(f"{value:.4f}" for value in (0.0, height, 0.0, *frame.ravel()))
        for frame, height in zip(angles, heights, strict=True)
    ]
    path.write_text("\n".join(lines))


def test_limbs_of_another_shape_point_the_same_way(tmp_path):
    """The bones of a CMU skeleton and of SMPL's are parallel, and the hips move by as many leg lengths."""
    angles = np.random.default_rng(0).normal(scale=20.0, size=(6, len(CMU_SKELETON), 3))
    heights = np.linspace(15.0, 17.0, 6)
    write_skeleton(tmp_path / "m.bvh", CMU_SKELETON, angles, heights)
    bvh, motion = read_bvh(tmp_path / "m.bvh"), load_motion(tmp_path / "m.bvh")
    read = np.concatenate([motion.global_orient, motion.body_pose], axis=1)
    places = forward(read, motion.transl.numpy())[1]
    for joint, (start, end) in LIMBS.items():
        bone = bvh.positions[:, bvh.names.index(end)] - bvh.positions[:, bvh.names.index(start)]
        bone /= np.linalg.norm(bone, axis=-1, keepdims=True)
        assert degrees_apart(bones(places)[:, JOINT[joint] - 1], bone).max() < 0.1, joint
    hips = bvh.positions[:, [bvh.names.index("LeftUpLeg"), bvh.names.index("RightUpLeg")]].mean(axis=1)
    body_hips = places[:, [JOINT["left_hip"], JOINT["right_hip"]]].mean(axis=1)
    leg = np.linalg.norm([2.4, 6.65, 0.0]) + np.linalg.norm([2.5, 6.8, 0.0])
    np.testing.assert_allclose(body_hips, hips * (0.381 + 0.434) / leg, rtol=0.01, atol=0.005)


def test_resting_skeleton_stands_in_smpls_t_pose(tmp_path):
    """Zero angles are the file's rest pose: here a T-pose with legs apart, so only the legs turn; feet stay flat."""
    write_skeleton(tmp_path / "m.bvh", CMU_SKELETON, np.zeros((2, len(CMU_SKELETON), 3)), [0.0, 0.0])
    motion = load_motion(tmp_path / "m.bvh")
    angles = np.degrees(np.linalg.norm(motion.body_pose[0].reshape(23, 3), axis=1))
    moved = {JOINT_NAMES[joint + 1] for joint in np.flatnonzero(angles > 1.0)}
    assert moved <= {f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "knee", "ankle")}
    assert angles[JOINT["left_hip"] - 1] == pytest.approx(np.degrees(np.arctan(2.4 / 6.7) - np.arctan(0.06)), abs=0.5)
    read = np.concatenate([motion.global_orient, motion.body_pose], axis=1)
    for name in ("left_ankle", "right_ankle"):
        np.testing.assert_allclose(
            forward(read, motion.transl.numpy())[0][0, JOINT[name]] @ [0, 1, 0], [0, 1, 0], atol=1e-6
        )


def test_feet_that_moved_with_the_legs_are_not_flat(tmp_path):
    """A skeleton of SMPL's own shape whose legs were spread in the rest pose, and the feet with them."""
    rest = rest_pose(0.8, 0.0).reshape(24, 3)
    rest[JOINT["left_hip"], 2], rest[JOINT["right_hip"], 2] = 0.3, -0.3
    poses, transl = dance()
    write_bvh(tmp_path / "m.bvh", poses, transl, 30.0, BvhStyle(MIXAMO, rest.ravel()))
    motion = load_motion(tmp_path / "m.bvh")
    read = np.concatenate([motion.global_orient, motion.body_pose], axis=1)
    apart = forward(poses, transl)[0].swapaxes(-1, -2) @ forward(read, motion.transl.numpy())[0]
    assert np.degrees(Rotation.from_matrix(apart.reshape(-1, 3, 3)).magnitude()).max() < 0.1


def text_file(path):
    path.write_text("version https://git-lfs.github.com/spec/v1")


def truncate(path):
    path.write_text("\n".join(path.read_text().splitlines()[:-3]))


def cut_hierarchy(path):
    header, _, motion = path.read_text().partition("MOTION")
    path.write_text("\n".join(header.splitlines()[:30]) + "\nMOTION" + motion)


def lose_numbers(path):
    path.write_text(path.read_text().rstrip().rpartition(" ")[0])


def miscount(frames):
    def damage(path):
        path.write_text(path.read_text().replace("Frames: 5", f"Frames: {frames}"))

    damage.__name__ = f"count_{frames}_frames"
    return damage


def write_nan(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-2], lines[-2].replace(lines[-2].split()[3], "nan"), lines[-1]]))


def write_word(path):
    path.write_text(path.read_text() + " x")


def empty(path):
    header = path.read_text().partition("MOTION")[0]
    path.write_text(header + "MOTION\nFrames: 0\nFrame Time: 0.01\n")


def stop_time(path):
    path.write_text(path.read_text().replace("Frame Time: .0083333", "Frame Time: 0"))


def rename_legs(path):
    path.write_text(path.read_text().replace("LeftUpLeg", "Tentacle1").replace("RightUpLeg", "Tentacle2"))


def drop_joints(path):
    skeleton = {"Hips": (None, (0, 0, 0)), "Chest": ("Hips", (0, 1, 0)), "Head": ("Chest", (0, 1, 0))}
    write_skeleton(path, skeleton, np.zeros((2, 3, 3)), [0.0, 0.0])


def lie_down(path):
    """Every bone along x, as some programs have it."""
    along = {name: (parent, (np.linalg.norm(offset), 0.0, 0.0)) for name, (parent, offset) in CMU_SKELETON.items()}
    write_skeleton(path, along, np.zeros((2, len(along), 3)), [0.0, 0.0])


def raise_leg(path):
    skeleton = {**CMU_SKELETON, "LeftLeg": ("LeftUpLeg", (0.0, 7.0, 0.0))}
    write_skeleton(path, skeleton, np.zeros((2, len(skeleton), 3)), [0.0, 0.0])


def reverse_thigh(path):
    """Exactly against SMPL's own, where the shortest turn has no axis of its own."""
    joints = load_body_model("free").rest(torch.zeros(10))[1].double().numpy()
    thigh = 20 * (joints[JOINT_NAMES.index("left_hip")] - joints[JOINT_NAMES.index("left_knee")])
    skeleton = {**CMU_SKELETON, "LeftLeg": ("LeftUpLeg", tuple(thigh))}
    write_skeleton(path, skeleton, np.zeros((2, len(skeleton), 3)), [0.0, 0.0])


def turn_twice(path):
    path.write_text(path.read_text().replace("3 Zrotation Yrotation Xrotation", "3 Zrotation Zrotation Xrotation", 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (text_file, "found no HIERARCHY"),
        (truncate, "expected 5 frames of 84 numbers, found 168 numbers; it ends early"),
        (lose_numbers, "expected 5 frames of 84 numbers, found 419 numbers; it ends early"),
        (miscount(3), "expected 3 frames of 84 numbers, found 420 numbers"),
        (miscount(7), "expected 7 frames of 84 numbers, found 420 numbers; it ends early"),
        (cut_hierarchy, "hierarchy of joints"),
        (write_nan, "NaN or infinity in frame 3"),
        (write_word, "frames of numbers after MOTION"),
        (empty, "at least one frame"),
        (stop_time, "positive Frame Time"),
        (
            rename_legs,
            r"names are nearest to those of CMU, .*\), found none for left_hip, right_hip among Hips, LHipJoint, Tenta",
        ),
        (drop_joints, "a person's joints, found none for left_hip, left_knee"),
        (lie_down, "stands upright"),
        (raise_leg, "found quite another direction from left_hip to left_knee"),
        (reverse_thigh, "found quite another direction from left_hip to left_knee"),
        (turn_twice, "the channels '3 Zrotation Zrotation Xrotation'"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_unusable_files(tmp_path, damage, message):
    path = tmp_path / "m.bvh"
    write_skeleton(path, CMU_SKELETON, np.full((5, len(CMU_SKELETON), 3), 1.5), np.linspace(0.1, 0.5, 5))
    damage(path)
    with pytest.raises(InputError, match=rf"m\.bvh: .*{message}"):
        load_motion(path)


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"m\.bvh: expected a motion, found no such file"):
        load_motion(tmp_path / "m.bvh")


def test_joints_that_are_missing_do_not_bend(tmp_path):
    """Toes and collars may be missing; the bones beyond them still point as they should."""
    skeleton = {
        name: ("Spine1" if "Shoulder" in str(parent) else parent, offset)
        for name, (parent, offset) in CMU_SKELETON.items()
        if "Toe" not in name and "Shoulder" not in name and "Neck" not in name
    }
    skeleton["Head"] = ("Spine1", (0.0, 3.0, 0.0))
    angles = np.random.default_rng(1).normal(scale=20.0, size=(3, len(skeleton), 3))
    write_skeleton(tmp_path / "m.bvh", skeleton, angles, np.ones(3))
    bvh, motion = read_bvh(tmp_path / "m.bvh"), load_motion(tmp_path / "m.bvh")
    pose = motion.body_pose.reshape(3, 23, 3)
    for name in ("left_foot", "left_collar", "right_hand"):
        np.testing.assert_allclose(pose[:, JOINT[name] - 1], 0.0, atol=1e-6)
    read = np.concatenate([motion.global_orient, motion.body_pose], axis=1)
    directions = bones(forward(read, motion.transl.numpy())[1])
    bone = bvh.positions[:, bvh.names.index("LeftForeArm")] - bvh.positions[:, bvh.names.index("LeftArm")]
    bone /= np.linalg.norm(bone, axis=-1, keepdims=True)
    assert degrees_apart(directions[:, JOINT["left_elbow"] - 1], bone).max() < 0.1


def test_frame_time_of_23_976_is_kept(tmp_path):
    poses, transl = dance(3)
    write_bvh(tmp_path / "m.bvh", poses, transl, 24000 / 1001, replace(STYLES["mixamo"], unit=1.0))
    assert load_motion(tmp_path / "m.bvh").fps == pytest.approx(23.976, abs=1e-3)


@pytest.mark.parametrize("frames", [4, 6])
def test_count_of_frames_that_is_off_by_one(tmp_path, capsys, frames):
    path = tmp_path / "m.bvh"
    write_skeleton(path, CMU_SKELETON, np.full((5, len(CMU_SKELETON), 3), 1.5), np.linspace(0.1, 0.5, 5))
    whole = load_motion(path)
    miscount(frames)(path)
    motion = load_motion(path)
    np.testing.assert_array_equal(motion.body_pose, whole.body_pose)
    np.testing.assert_array_equal(motion.transl, whole.transl)
    assert f"It says {frames} frames, and has 5" in capsys.readouterr().out


def test_columns_that_touch(tmp_path):
    """Fixed widths leave no room before a minus."""
    path = tmp_path / "m.bvh"
    angles = np.random.default_rng(0).normal(scale=30.0, size=(5, len(CMU_SKELETON), 3))
    write_skeleton(path, CMU_SKELETON, angles, np.full(5, -17.0))
    whole = load_motion(path)
    header, word, frames = path.read_text().partition("MOTION")
    path.write_text(header + word + frames.replace(" -", "-").replace("17.0000", "1.7e+01"))
    np.testing.assert_array_equal(load_motion(path).body_pose, whole.body_pose)
    np.testing.assert_array_equal(load_motion(path).transl, whole.transl)


def stick():
    """A rest pose in which most bones lie along one axis."""
    pose = np.zeros((24, 3))
    pose[0] = [0.0, 0.0, -np.pi / 2]
    pose[JOINT["left_hip"], 2], pose[JOINT["right_hip"], 2] = -np.pi, np.pi
    pose[JOINT["left_shoulder"], 2], pose[JOINT["right_shoulder"], 2] = np.pi / 2, -np.pi / 2
    pose[JOINT["left_collar"], 1], pose[JOINT["spine2"], 0] = 0.7, 0.6
    return pose.ravel()


@pytest.mark.parametrize("first", [np.zeros(72), A_POSE], ids=["T-pose", "A-pose"])
def test_first_frame_serves_as_rest_pose(tmp_path, capsys, first):
    poses, transl = dance()
    poses = np.concatenate([first[None], poses])
    transl = np.concatenate([transl[:1], transl])
    write_bvh(tmp_path / "m.bvh", poses, transl, 30.0, BvhStyle(MIXAMO, stick(), unit=100.0))
    motion = load_motion(tmp_path / "m.bvh")
    assert "Its first frame is one, and serves as the rest pose." in capsys.readouterr().out
    read = np.concatenate([motion.global_orient, motion.body_pose], axis=1)
    apart = forward(poses, transl)[0].swapaxes(-1, -2) @ forward(read, motion.transl.numpy())[0]
    assert np.degrees(Rotation.from_matrix(apart.reshape(-1, 3, 3)).magnitude()).max() < 2.0
    np.testing.assert_allclose(forward(read, motion.transl.numpy())[1], forward(poses, transl)[1], atol=0.01)


def test_first_frame_that_is_no_t_pose_does_not_serve(tmp_path):
    poses, transl = dance()
    poses[0].reshape(24, 3)[JOINT["left_hip"]] = [-1.0, 0.0, 0.0]
    write_bvh(tmp_path / "m.bvh", poses, transl, 30.0, BvhStyle(MIXAMO, stick()))
    with pytest.raises(InputError, match=r"expected a rest pose .* T-pose or A-pose as its rest pose, or as its first"):
        load_motion(tmp_path / "m.bvh")


def test_motion_without_positions_is_told(tmp_path, capsys):
    path = tmp_path / "m.bvh"
    write_skeleton(path, CMU_SKELETON, np.full((5, len(CMU_SKELETON), 3), 1.5), np.zeros(5))
    header, word, frames = path.read_text().partition("MOTION")
    lines = frames.splitlines()
    lines[3:] = [line.split(maxsplit=3)[3] for line in lines[3:]]
    header = header.replace("6 Xposition Yposition Zposition", "3")
    path.write_text(header + word + "\n".join(lines))
    motion = load_motion(path)
    assert float(np.ptp(motion.transl.numpy(), axis=0).max()) < 1e-5
    assert "It has no positions" in capsys.readouterr().out
