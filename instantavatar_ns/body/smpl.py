"""SMPL's own facts: its joints and their order, tree and mirror images, its canonical A-pose, its number of betas.

Everything that needs SMPL's joints by name or number takes them from here; everything else takes their number from the
body (`BodyModel.num_joints`), whose rig this is unless it was given another.
"""

from __future__ import annotations

from instantavatar_ns.body.rig import Rig

JOINT_NAMES = tuple(
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot "
    "neck left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_hand right_hand".split()
)
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
MIRROR_IMAGES = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
NUM_JOINTS = len(JOINT_NAMES)
NUM_BETAS = 10  # that every data format here has; SMPL's files hold up to 300

# An A-pose (InstantAvatar section 3.1): hips opened, arms lowered.
A_POSE = {
    "left_hip": (0.0, 0.0, 0.2),
    "right_hip": (0.0, 0.0, -0.2),
    "left_shoulder": (0.0, 0.0, -0.8),
    "right_shoulder": (0.0, 0.0, 0.8),
}
SMPL = Rig(JOINT_NAMES, PARENTS, tuple(MIRROR_IMAGES), A_POSE)
