"""The motions that come along: named, plausible, on the floor."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.motion.editing import MotionOptions, Root, describe_jump, edit_motion
from instantavatar_ns.motion.free_motions import find_motion, library_names
from instantavatar_ns.motion.motion import load_motion
from instantavatar_ns.utils.errors import InputError

NAMES = ("dance", "stretch", "walk")
BODY = load_body_model("free")


@pytest.fixture(scope="module", params=NAMES)
def motion(request):
    return load_motion(Path(request.param))


def vertices(motion):
    return BODY.vertices(torch.zeros(10), motion.global_orient, motion.body_pose, motion.transl).numpy()


def test_all_are_listed():
    assert library_names() == list(NAMES)


def test_names_are_found_unless_a_file_has_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_motion(Path("walk")).name == "walk.npz" and find_motion(Path("walk")).is_file()
    assert find_motion(Path("run")) == Path("run")
    assert find_motion(Path("folder/walk")) == Path("folder/walk")
    Path("walk").touch()
    assert find_motion(Path("walk")) == Path("walk")


def test_unknown_name_lists_those_that_are_there():
    with pytest.raises(InputError, match=r"somersault: .*no such file\. .*dance, stretch, walk"):
        load_motion(Path("somersault"))


def test_feet_neither_sink_nor_slide(motion):
    body = vertices(motion)
    assert body[..., 1].min() > -0.002
    assert body[..., 1].min(axis=1).max() < 0.002, "somebody flies"
    # Skin that is on the floor in two frames has moved over it by that much.
    on_floor = (body[:-1, :, 1] < 0.004) & (body[1:, :, 1] < 0.004)
    slides = np.linalg.norm((body[1:] - body[:-1])[..., [0, 2]], axis=-1)
    means = (slides * on_floor).sum(axis=1) / np.maximum(on_floor.sum(axis=1), 1)
    assert means.max() < 0.004 and means.mean() < 0.001  # metres a frame


def test_nobody_jerks(motion):
    rotvecs = torch.cat([motion.global_orient, motion.body_pose], dim=1).double().numpy().reshape(-1, 3)
    turns = Rotation.from_rotvec(rotvecs).as_matrix().reshape(len(motion), 24, 3, 3)
    steps = Rotation.from_matrix((turns[:-1].swapaxes(-1, -2) @ turns[1:]).reshape(-1, 3, 3)).magnitude()
    assert np.degrees(steps).max() < 18  # a frame, of a thirtieth of a second
    assert motion.fps == 30.0 and 3 < motion.duration < 10
    np.testing.assert_array_equal(motion.up.numpy(), [0, 1, 0])


@pytest.mark.parametrize("name", ["dance", "walk"])
def test_repeats_without_a_bend(name):
    """These end in the pose in which they begin: a loop changes nothing but drops the last frame."""
    motion = load_motion(Path(name))
    for root in get_args(Root):
        looped = edit_motion(motion, MotionOptions(root=root, loop=0.2))
        assert len(looped) == len(motion) - 1
        torch.testing.assert_close(looped.body_pose, motion.body_pose[:-1], atol=1e-4, rtol=0)


def test_with_a_camera_that_goes_along_nobody_leaves_the_place_and_nothing_jumps(motion):
    followed = edit_motion(motion, MotionOptions())
    level = followed.transl[:, [0, 2]] - followed.transl[0, [0, 2]]
    assert level.norm(dim=1).max() < 0.3 and level[-1].norm() < 1e-5
    assert describe_jump(followed, MotionOptions()) == ""


def test_steps_and_sway_remain_where_the_camera_goes_along():
    for name, sway in (("dance", 0.2), ("walk", 0.03)):
        motion = load_motion(Path(name))
        across = edit_motion(motion, MotionOptions()).transl[:, 0]
        assert np.ptp(across.numpy()) == pytest.approx(np.ptp(motion.transl[:, 0].numpy()), rel=0.15)
        assert np.ptp(across.numpy()) > sway
        assert np.ptp(edit_motion(motion, MotionOptions(root="in-place")).transl[:, 0].numpy()) < 1e-6


def test_walk_walks_dance_steps_and_stretch_reaches():
    joints = {}
    for name in NAMES:
        motion = load_motion(Path(name))
        transforms = BODY.transforms(torch.zeros(10), motion.global_orient, motion.body_pose, motion.transl)
        rest = torch.cat([BODY.rest(torch.zeros(10))[1], torch.ones(24, 1)], dim=1)
        places = (transforms @ rest[:, :, None])[..., :3, 0].numpy()
        joints[name] = {joint: places[:, index] for index, joint in enumerate(JOINT_NAMES)}
    walk, dance, stretch = joints["walk"], joints["dance"], joints["stretch"]
    assert 0.8 < walk["pelvis"][-1, 2] / 3.2 < 1.4, "metres a second, ahead"
    # Feet pass each other six times, and each arm is ahead with the other leg.
    feet = walk["left_ankle"][:, 2] - walk["right_ankle"][:, 2]
    hands = walk["left_wrist"][:, 2] - walk["right_wrist"][:, 2]
    assert (np.diff(np.sign(feet)) != 0).sum() == 6
    assert np.corrcoef(feet, hands)[0, 1] < -0.8
    for side in ("left", "right"):
        assert np.ptp(dance[f"{side}_ankle"][:, 0]) > 0.2 and np.ptp(dance[f"{side}_ankle"][:, 1]) > 0.05
        assert dance[f"{side}_wrist"][:, 1].max() > dance["head"][:, 1].max()
        assert stretch[f"{side}_wrist"][:, 1].max() > stretch["head"][:, 1].max() + 0.3
        assert stretch[f"{side}_wrist"][:, 1].min() < 0.45
