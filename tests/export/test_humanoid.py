"""VRM's T-pose, and its human bones."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.export.humanoid import REQUIRED_BONES, humanoid_bones, humanoid_of, t_pose_turns
from instantavatar_ns.export.rigged import joint_transforms, skinning_matrices
from instantavatar_ns.export.skeleton import Skeleton
from instantavatar_ns.utils.errors import InputError
from tests.body.test_other_joints import worm
from tests.export.skinning import skin

FINGERS = tuple(
    f"{side}_{finger}{joint}"
    for side in ("left", "right")
    for finger in ("index", "middle", "pinky", "ring", "thumb")
    for joint in (1, 2, 3)
)
SMPLX = (*JOINT_NAMES[:22], "jaw", "left_eye_smplhf", "right_eye_smplhf", *FINGERS)


@pytest.fixture(scope="module")
def person(rigged):
    return humanoid_of(rigged)


def _places(humanoid):
    places = joint_transforms(humanoid.avatar.skeleton, humanoid.rest)[0, :, :3, 3]
    return {bone: places[joint] for bone, joint in humanoid.bones.items()}


def test_smpl_has_the_required_bones_and_more():
    bones = humanoid_bones(JOINT_NAMES)
    assert len(REQUIRED_BONES) == 15 and set(REQUIRED_BONES) <= set(bones)
    extra = {"chest", "upperChest", "neck", "leftShoulder", "rightShoulder", "leftToes", "rightToes"}
    assert set(bones) == {*REQUIRED_BONES, *extra}
    assert JOINT_NAMES[bones["leftLowerArm"]] == "left_elbow" and JOINT_NAMES[bones["rightUpperLeg"]] == "right_hip"


def test_smplx_has_fingers_eyes_and_jaw():
    bones = humanoid_bones(SMPLX)
    assert len(bones) == len(SMPLX) == 55
    assert SMPLX[bones["leftLittleIntermediate"]] == "left_pinky2"
    assert SMPLX[bones["rightThumbMetacarpal"]] == "right_thumb1"


def test_bones_whose_parent_is_missing_are_left_out():
    """VRM has no finger without its first joint, and no upper chest without a chest."""
    bones = humanoid_bones(tuple(name for name in SMPLX if name not in ("left_index1", "spine2")))
    left_out = {"leftIndexProximal", "leftIndexIntermediate", "leftIndexDistal", "chest", "upperChest"}
    assert set(humanoid_bones(SMPLX)) - set(bones) == left_out


def test_body_without_human_bones_ends_in_one_error():
    body = worm(17)
    with pytest.raises(InputError, match=r"human body, found no joint for VRM's bones hips, spine.*among root, left1"):
        humanoid_bones(body.rig.joint_names)


def test_t_pose_is_that_of_the_standard(person):
    at = _places(person)
    for side, sign in (("left", 1), ("right", -1)):
        for bone, end in (("UpperLeg", "LowerLeg"), ("LowerLeg", "Foot")):
            way = at[side + end] - at[side + bone]
            np.testing.assert_allclose(way / np.linalg.norm(way), [0, -1, 0], atol=1e-6)
        for bone, end in (("UpperArm", "LowerArm"), ("LowerArm", "Hand")):
            way = at[side + end] - at[side + bone]
            np.testing.assert_allclose(way / np.linalg.norm(way), [sign, 0, 0], atol=1e-6)
        foot = at[f"{side}Toes"] - at[f"{side}Foot"]
        assert foot[2] > 0.1 and abs(foot[0]) < 1e-6
    np.testing.assert_allclose(at["hips"][[0, 2]], 0, atol=1e-6)
    vertices = person.avatar.mesh.positions
    assert vertices[:, 1].min() == pytest.approx(0, abs=1e-6) and 1.5 < vertices[:, 1].max() < 1.9
    soles = vertices[vertices[:, 1] < 0.01]
    assert len(soles) > 20 and np.ptp(soles[:, 2]) > 0.15, "feet lie flat"


def test_no_joint_is_turned_or_sheared_in_the_t_pose(person):
    np.testing.assert_array_equal(person.rest.rotations[0], np.tile([0, 0, 0, 1], (24, 1)))
    matrices = skinning_matrices(person.avatar.skeleton, person.rest)[0]
    np.testing.assert_allclose(matrices, np.tile(np.eye(4), (24, 1, 1)), atol=1e-6)


def test_learnt_pose_comes_back_exactly(person, rigged):
    expected = skin(rigged.mesh, skinning_matrices(rigged.skeleton, rigged.rest)[0])
    found = skin(person.avatar.mesh, skinning_matrices(person.avatar.skeleton, person.clip(rigged.rest))[0])
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4)


def test_motion_is_the_same_from_the_t_pose(person, rigged, walk):
    """Joints exactly; the surface but for the blending that differs."""
    clip = rigged.clip(walk)
    turned = person.clip(clip)
    expected, found = (joint_transforms(s, c) for s, c in ((rigged.skeleton, clip), (person.avatar.skeleton, turned)))
    np.testing.assert_allclose(found[..., :3, 3], expected[..., :3, 3], atol=1e-5)
    assert ((turned.rotations[1:] * turned.rotations[:-1]).sum(axis=-1) > 0.9).all(), "the short way round"
    before = skin(rigged.mesh, (expected @ rigged.skeleton.inverse_bind)[10])[0]
    after = skin(person.avatar.mesh, (found @ person.avatar.skeleton.inverse_bind)[10])[0]
    assert np.linalg.norm(after - before, axis=1).mean() < 0.002


def test_crooked_limbs_are_straightened(rigged):
    """Of a body model whose T-pose has bent elbows, bow legs and feet that point outwards."""
    generator = np.random.default_rng(1)
    skeleton = rigged.skeleton
    offsets = skeleton.offsets.copy()
    for joint in range(1, len(offsets)):
        offsets[joint] = Rotation.from_rotvec(0.2 * generator.standard_normal(3)).apply(offsets[joint])
    crooked = Skeleton(skeleton.names, skeleton.parents, offsets, skeleton.inverse_bind)
    bones = humanoid_bones(rigged.joint_names)
    turns = t_pose_turns(crooked, rigged.joint_names, bones)
    for side, sign in (("left", 1), ("right", -1)):
        for joint, end, way in (
            ("hip", "knee", [0, -1, 0]),
            ("knee", "ankle", [0, -1, 0]),
            ("shoulder", "elbow", [sign, 0, 0]),
            ("elbow", "wrist", [sign, 0, 0]),
            ("wrist", "hand", [sign, 0, 0]),
        ):
            joint, end = (rigged.joint_names.index(f"{side}_{name}") for name in (joint, end))
            bone = turns[joint] @ offsets[end]
            np.testing.assert_allclose(bone / np.linalg.norm(bone), way, atol=1e-6)
        ankle, foot = (rigged.joint_names.index(f"{side}_{name}") for name in ("ankle", "foot"))
        np.testing.assert_allclose(turns[ankle][1], [0, 1, 0], atol=1e-9)  # flat on the floor
        assert abs((turns[ankle] @ offsets[foot])[0]) < 1e-6
