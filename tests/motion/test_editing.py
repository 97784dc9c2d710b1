"""Cuts, loops, holding in place, and the way from the training pose into a motion."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.motion.editing import (
    MotionOptions,
    cut,
    describe_jump,
    edit_motion,
    hold_in_place,
    lead_in,
    loop,
    prepare_motion,
    take_out_travel,
)
from instantavatar_ns.motion.motion import Motion
from instantavatar_ns.utils.errors import InputError

UP = torch.tensor([0.0, 0.0, 1.0])


def wave(count=31, fps=30.0):
    """Arms that turn and a root that travels, rises and turns; the end is unlike the start."""
    share = torch.linspace(0, 1, count)[:, None]
    stand = torch.tensor(Rotation.from_euler("x", 90, degrees=True).as_rotvec(), dtype=torch.float32)
    turn = Rotation.from_rotvec(share.numpy() * [0, 0, 1.5]) * Rotation.from_rotvec(stand.numpy())
    body_pose = torch.sin(share * torch.linspace(1, 5, 69)) * 0.8
    transl = torch.cat([2 * share, -share, 0.1 * torch.sin(9 * share)], dim=1)
    return Motion(torch.zeros(10), torch.tensor(turn.as_rotvec(), dtype=torch.float32), body_pose, transl, fps, UP)


def all_rotations(motion):
    rotvecs = torch.cat([motion.global_orient, motion.body_pose], dim=1).reshape(-1, 3).double().numpy()
    return Rotation.from_rotvec(rotvecs)


def steps(motion):
    """Rotation angles from each frame to the next [T - 1, 24]."""
    before, after = cut(motion, 0, len(motion) - 1), cut(motion, 1)
    return (all_rotations(before).inv() * all_rotations(after)).magnitude().reshape(-1, 24)


def joined(*motions):
    return replace(
        motions[0],
        **{
            name: torch.cat([getattr(motion, name) for motion in motions])
            for name in ("global_orient", "body_pose", "transl")
        },
    )


def test_cut():
    motion = wave()
    part = cut(motion, 5, 9)
    assert len(part) == 4
    torch.testing.assert_close(part.transl, motion.transl[5:9])
    torch.testing.assert_close(part.global_orient, motion.global_orient[5:9])
    torch.testing.assert_close(part.body_pose, motion.body_pose[5:9])
    assert len(cut(motion)) == 31 and len(cut(motion, 30)) == 1


@pytest.mark.parametrize(("start", "end"), [(31, None), (-1, None), (5, 5), (6, 5), (0, 32)])
def test_cut_outside_the_motion(start, end):
    with pytest.raises(InputError, match="expected frames of the motion, which has 31"):
        cut(wave(), start, end)


def test_held_in_place_the_root_only_rises_and_turns():
    motion = wave()
    held = hold_in_place(motion)
    torch.testing.assert_close(held.transl[:, :2], motion.transl[:1, :2].expand(31, 2))
    torch.testing.assert_close(held.transl[:, 2], motion.transl[:, 2])
    torch.testing.assert_close(held.global_orient, motion.global_orient)


def test_with_a_camera_that_goes_along_the_root_neither_travels_nor_jumps_where_the_motion_repeats():
    motion = wave()
    followed = take_out_travel(motion)
    torch.testing.assert_close(followed.transl[:, :2], motion.transl[:1, :2].expand(31, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(followed.transl[:, 2], motion.transl[:, 2])
    torch.testing.assert_close(followed.global_orient, motion.global_orient)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (MotionOptions(), "0.0. m and 86 degrees .*: --loop"),
        (MotionOptions(root="as-recorded"), r"2\.\d+ m and 86 degrees .*--root follow"),
        (MotionOptions(loop=0.4), "^$"),
        (MotionOptions(root="as-recorded", loop=0.4), r"slides back by up to [12]\.. m"),
        (MotionOptions(loop=0.4, transition=0.3), "--transition"),
    ],
)
def test_what_is_seen_where_a_motion_repeats_is_told(options, message):
    motion = wave()
    motion = replace(motion, body_pose=motion.body_pose * 0)  # the root's turn is 1.5 radians
    assert re.search(message, describe_jump(edit_motion(motion, options), options))


def test_loop_repeats_without_a_jump():
    motion = wave()
    looped = loop(motion, 0.5)
    assert len(looped) == 30
    untouched = 15
    torch.testing.assert_close(looped.body_pose[:untouched], motion.body_pose[:untouched])
    twice = joined(looped, looped)
    seam, moved = steps(twice)[len(looped) - 1], steps(motion)
    assert (seam <= 1.5 * moved.max() + 1e-6).all()
    # Unbent, the seam is the whole way back.
    assert steps(joined(motion, motion))[len(motion) - 1].max() > 5 * seam.max()
    assert (twice.transl[30] - twice.transl[29]).norm() < 1.5 * (motion.transl[1:] - motion.transl[:-1]).norm(
        dim=1
    ).max()


def test_loop_of_a_closed_motion_only_loses_the_repeated_frame():
    motion = joined(wave(), cut(wave(), 0, 1))
    closed = loop(motion, 0.3)
    assert len(closed) == len(motion) - 1
    np.testing.assert_allclose(all_rotations(closed).as_matrix(), all_rotations(wave()).as_matrix(), atol=1e-5)
    torch.testing.assert_close(closed.transl, wave().transl, atol=1e-6, rtol=0)


def test_lead_in_goes_smoothly_from_the_pose_to_the_first_frame():
    motion, stand = wave(), cut(wave(), 20, 21)
    led = lead_in(motion, stand, 1.0)
    assert len(led) == 61 and led.duration == pytest.approx(motion.duration + 1)
    start = all_rotations(cut(led, 0, 1)).as_matrix()
    np.testing.assert_allclose(start, all_rotations(stand).as_matrix(), atol=1e-6)
    torch.testing.assert_close(led.transl[0], stand.transl[0])
    torch.testing.assert_close(led.body_pose[30:], motion.body_pose)
    way = (all_rotations(stand).inv() * all_rotations(cut(motion, 0, 1))).magnitude()
    angles = steps(led)[:30]
    # The shortest way, in thirty frames, slow at both ends.
    np.testing.assert_allclose(angles.sum(axis=0), way, atol=1e-5)
    assert (angles[0] < 0.01 * way + 1e-6).all() and (angles[-1] < 0.01 * way + 1e-6).all()
    assert (angles.max(axis=0) < 0.06 * way + 1e-6).all()


def test_only_travel_is_taken_out_by_default():
    motion = wave()
    for root, expected in (("as-recorded", motion), ("follow", take_out_travel(motion))):
        edited = edit_motion(motion, MotionOptions(root=root))
        torch.testing.assert_close(edited.axis_angles, expected.axis_angles)
        torch.testing.assert_close(edited.transl, expected.transl)
    assert MotionOptions().root == "follow"
    assert loop(motion, 0.0) is motion and lead_in(motion, motion, 0.0) is motion


def test_120_frames_per_second_played_at_30_keep_their_duration():
    motion = wave(count=481, fps=120.0)
    slower = edit_motion(motion, MotionOptions(fps=30.0))
    assert len(slower) == 121 and slower.fps == 30.0
    assert slower.duration == pytest.approx(motion.duration) == pytest.approx(4.0)
    torch.testing.assert_close(slower.body_pose, motion.body_pose[::4], atol=1e-5, rtol=0)


def test_options_act_in_their_order():
    """Frames are the file's, seconds the played ones, and the place is the person's."""
    motion, stand = wave(count=241, fps=120.0), cut(wave(), 0, 1)
    stand = replace(stand, transl=torch.tensor([[5.0, 6.0, 1.0]]))
    options = MotionOptions(start_frame=40, end_frame=201, fps=30.0, root="in-place", loop=0.4, transition=0.5)
    played = prepare_motion(motion, options, stand, UP)
    assert len(played) == 15 + 40
    torch.testing.assert_close(played.transl[15], stand.transl[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(played.transl[15:, :2], stand.transl[:, :2].expand(40, 2), atol=1e-5, rtol=0)
    as_given = prepare_motion(motion, replace(options, root="as-recorded", place="dataset"), stand, UP)
    torch.testing.assert_close(as_given.transl[15], motion.transl[40], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (MotionOptions(loop=2.0), "loop: expected less than the motion's 1 s"),
        (MotionOptions(loop=-1.0), "loop: expected a duration"),
        (MotionOptions(transition=float("nan")), "transition: expected a duration"),
        (MotionOptions(fps=0.0), "fps: expected a positive number"),
        (MotionOptions(start_frame=99), "start_frame"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        prepare_motion(wave(), options, cut(wave(), 0, 1), UP)
