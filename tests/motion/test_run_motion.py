"""The motion of a run's configuration."""

from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.motion.editing import MotionOptions
from instantavatar_ns.motion.motion import load_motion
from instantavatar_ns.motion.run_motion import load_run_motion

WALK, UP = Path("walk"), torch.tensor([0.0, 1.0, 0.0])
STAND = PoseSequence(torch.rand(10), torch.zeros(1, 3), torch.zeros(1, 69), torch.tensor([[1.0, 2.0, 3.0]]))


def test_motion_has_the_persons_shape_and_starts_where_the_person_stands() -> None:
    motion = load_run_motion(WALK, MotionOptions(), STAND, UP)
    walk = load_motion(WALK)
    assert motion.betas is STAND.betas and motion.fps == walk.fps and motion.name == "walk"
    torch.testing.assert_close(motion.transl[0], STAND.transl[0])
    torch.testing.assert_close(motion.body_pose, walk.body_pose)


def test_what_the_file_does_not_say_is_given(tmp_path: Path) -> None:
    """A person who lies along z, or stands if z is up."""
    poses = np.zeros((5, 72))
    poses[:, 0] = np.pi / 2
    np.savez(tmp_path / "m.npz", poses=poses, trans=np.zeros((5, 3)), fps=np.nan)
    for up, lean in (("y", 90.0), ("z", 0.0)):
        options = MotionOptions(source_fps=50.0, up=up)
        played = load_run_motion(tmp_path / "m.npz", options, STAND, UP)
        head = Rotation.from_rotvec(played.global_orient.double().numpy()).apply([0.0, 1.0, 0.0])
        assert played.fps == 50.0
        np.testing.assert_allclose(np.degrees(np.arccos(head @ UP.numpy())), lean, atol=0.1)


def test_options_are_heeded() -> None:
    walk = load_motion(WALK)
    seconds = 3 / walk.fps
    options = MotionOptions(end_frame=5, root="as-recorded", place="dataset", fps=walk.fps * 2, transition=seconds)
    poses = load_run_motion(WALK, options, STAND, UP)
    assert poses.fps == 2 * walk.fps and len(poses) == 6 + 9
    torch.testing.assert_close(poses.transl[0], STAND.transl[0])
    torch.testing.assert_close(poses.transl[6::2], walk.transl[:5])
