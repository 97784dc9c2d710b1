"""Sliders of the joints: where they turn what, and that they compose with a pose as the body model would."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.model import JOINT_NAMES
from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.viewer.joint_sliders import LIMBS, JointSliders, bend, canonical_skeleton, joint_turns
from tests.avatars import BETAS, bone_transforms

MAIN_JOINTS = {
    f"{side}_{joint}" for side in ("left", "right") for joint in "shoulder elbow wrist hip knee ankle".split()
}


@pytest.fixture(scope="module")
def skeleton(small_avatar):
    return canonical_skeleton(small_avatar.body, BETAS)


def posed(avatar, body_pose):
    return PosedBody(torch.eye(4), bone_transforms(avatar.body, body_pose[None])[0])


def bent(avatar, skeleton, limb, label, joint):
    """Movement of a joint of the T-pose, in root space."""
    sliders = JointSliders()
    sliders.slider(limb, label).value = 40.0
    before = posed(avatar, torch.zeros(69))
    after = bend(before, skeleton, joint_turns(sliders.angles()))
    index = JOINT_NAMES.index(joint)
    places = [(body.bone_transforms @ skeleton.frames)[index, :3, 3] for body in (before, after)]
    return places[1] - places[0]


def test_bending_is_what_the_body_model_does_with_composed_rotations(small_avatar, skeleton) -> None:
    torch.manual_seed(0)
    pose = 0.5 * torch.randn(23, 3)
    sliders = JointSliders()
    sliders.slider("left arm", "Elbow, bend").value = 70.0
    sliders.slider("left arm", "Shoulder, raise").value = -30.0
    sliders.slider("left arm", "Shoulder, twist").value = 20.0
    sliders.slider("right leg", "Knee, bend").value = 45.0
    sliders.slider("spine, neck and head", "Spine, turn left").value = 60.0
    turns = joint_turns(sliders.angles())
    composed = pose.clone()
    for joint, turn in turns.items():
        own = Rotation.from_rotvec(pose[joint - 1].numpy()) * Rotation.from_rotvec(turn)
        composed[joint - 1] = torch.from_numpy(own.as_rotvec())
    expected = posed(small_avatar, composed.flatten())
    result = bend(posed(small_avatar, pose.flatten()), skeleton, turns)
    torch.testing.assert_close(result.bone_transforms, expected.bone_transforms, atol=2e-5, rtol=0)
    assert (result.bone_transforms - posed(small_avatar, pose.flatten()).bone_transforms).abs().max() > 0.3
    assert len(turns) == 6, "elbow, shoulder, knee and three joints of the spine"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "case",
    [  # in root space x points to the left, y up, z ahead; for the left side, of the right x is mirrored
        ("arm", "Elbow, bend", "wrist", (-1, 0, 1)),
        ("arm", "Shoulder, raise", "wrist", (-1, 1, 0)),
        ("arm", "Shoulder, forward", "wrist", (-1, 0, 1)),
        ("leg", "Hip, forward", "ankle", (0, 1, 1)),
        ("leg", "Hip, sideways", "ankle", (1, 1, 0)),
        ("leg", "Knee, bend", "ankle", (0, 1, -1)),
        ("leg", "Ankle, raise", "foot", (0, 1, 0)),
    ],
)
def test_positive_angles_move_limbs_the_way_their_label_says(small_avatar, skeleton, side, case) -> None:
    limb, label, joint, ways = case
    moved = bent(small_avatar, skeleton, f"{side} {limb}", label, f"{side}_{joint}")
    mirrored = moved * torch.tensor([1.0 if side == "left" else -1.0, 1.0, 1.0])
    for distance, way in zip(mirrored.tolist(), ways, strict=True):
        if way:
            assert distance * way > 0.01, (label, moved)


@pytest.mark.parametrize(("way", "axis", "sign"), [("forward", 2, 1), ("to the left", 0, 1)])
def test_spine_leans_as_its_label_says(small_avatar, skeleton, way, axis, sign) -> None:
    moved = bent(small_avatar, skeleton, "spine, neck and head", f"Spine, {way}", "head")
    assert sign * moved[axis] > 0.1


def test_no_slider_moved_means_no_turn_and_all_limbs_have_their_joints() -> None:
    sliders = JointSliders()
    assert sliders.angles() == ()
    joints = {joint for axes in LIMBS.values() for axis in axes for joint in axis.joints}
    assert joints == MAIN_JOINTS | {"spine1", "spine2", "spine3", "neck", "head"}


def test_angles_stay_within_their_ranges_and_reset_turns_all_back() -> None:
    sliders = JointSliders()
    sliders.slider("left arm", "Elbow, bend").value = 4000.0
    assert max(sliders.angles()) == 150.0
    sliders.reset()
    assert sliders.angles() == ()


def test_no_number_is_no_turn() -> None:
    sliders = JointSliders()
    sliders.slider("left arm", "Elbow, bend").value = float("nan")
    assert sliders.angles() == ()
