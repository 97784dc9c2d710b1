"""Which pose a camera sees and a training step, about which joints, and how long it is kept."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_transforms, root_space
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.correction.refinement import PoseRefinement
from instantavatar_ns.data.masks import WHITE_ON_BLACK
from instantavatar_ns.data.subject import Subject
from instantavatar_ns.motion.motion import Motion
from instantavatar_ns.rendering import poses as poses_module
from instantavatar_ns.rendering.poses import PoseProvider
from tests.avatars import Avatar

TRAIN, ALL, PLAYED = 8, 12, 4


def sequence(frames: int, seed: int) -> PoseSequence:
    random = torch.Generator().manual_seed(seed)
    return PoseSequence(
        torch.zeros(10),
        0.1 * torch.randn(frames, 3, generator=random),
        0.2 * torch.randn(frames, 69, generator=random),
        torch.randn(frames, 3, generator=random),
    )


@pytest.fixture(scope="module")
def subject() -> Subject:
    numbers = torch.arange(ALL)
    world_to_dataset = torch.eye(4)
    world_to_dataset[:3, 3] = torch.tensor([0.1, 0.2, 0.3])
    return Subject(
        body_model="free",
        poses=sequence(ALL, 0),
        num_train=TRAIN,
        train_numbers=numbers[:TRAIN],
        world_to_dataset=world_to_dataset,
        frame_numbers=numbers[:TRAIN],
        recording_rows=numbers,
        recording_numbers=numbers,
        mask_filenames=[],
        mask_encoding=WHITE_ON_BLACK,
        image_size=(1, 1),
    )


@pytest.fixture(scope="module")
def motion() -> Motion:
    return Motion(**vars(sequence(PLAYED, 1)), fps=30.0, up=torch.tensor([0.0, 1.0, 0.0]))


@pytest.fixture(scope="module")
def body(small_avatar: Avatar) -> BodyModel:
    return small_avatar.body


@pytest.fixture
def poses(subject: Subject, body: BodyModel) -> PoseProvider:
    return PoseProvider(subject, body, None, None, "cpu")


@pytest.fixture
def refinement(subject: Subject, body: BodyModel) -> PoseRefinement:
    return PoseRefinement.of_training_frames(subject, body, 8.0)


def at(time: float) -> Tensor:
    return torch.tensor([[time]])


def assert_same(one: PosedBody, other: PosedBody) -> None:
    torch.testing.assert_close(one.world_to_root, other.world_to_root, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.bone_transforms, other.bone_transforms, atol=1e-5, rtol=0)


def test_pose_id_comes_before_time_and_time_before_rest(poses: PoseProvider) -> None:
    metadata = {"pose_id": torch.tensor([[9], [3]])}
    for times in (at(0.0), None):
        assert poses.seen_by(times, metadata) is poses.frame(9)
    for nothing in ({"other": torch.ones(1)}, None):
        assert poses.seen_by(at(1.0), nothing) is poses.frame(TRAIN - 1)
        assert poses.seen_by(None, nothing) is poses.rest


@pytest.mark.parametrize(
    ("time", "frame"), [(-0.3, 0), (0.0, 0), (0.5, 4), (0.9, 6), (1.0, 7), (1.2, 7), (math.nan, 0)]
)
def test_time_plays_the_training_frames_and_stops_at_their_ends(poses: PoseProvider, time: float, frame: int) -> None:
    assert poses.seen_by(at(time), None) is poses.frame(frame)


def test_time_plays_a_motion_where_there_is_one(subject: Subject, body: BodyModel, motion: Motion) -> None:
    poses = PoseProvider(subject, body, None, motion, "cpu")
    assert poses.motion_poses is not None and len(poses.motion_poses) == PLAYED
    for time, frame in ((0.4, 1), (7.0, PLAYED - 1)):
        assert poses.seen_by(at(time), None) is poses.motion_frame(frame)
    assert poses.seen_by(at(0.4), {"pose_id": torch.tensor([2])}) is poses.frame(2)


def test_override_can_ask_for_what_would_be_seen_and_decides(poses: PoseProvider) -> None:
    given: list[PosedBody] = []

    def override(of_camera: Callable[[], PosedBody]) -> PosedBody:
        given.append(of_camera())
        return poses.frame(3)

    assert poses.seen_by(at(1.0), None, override) is poses.seen_by(None, None, override) is poses.frame(3)
    assert given == [poses.frame(TRAIN - 1), poses.rest]


def test_poses_are_those_of_the_body_in_nerfstudios_world(poses: PoseProvider, subject: Subject) -> None:
    for row in (0, ALL - 1):
        shown, given = poses.frame(row), subject.poses
        one = (given.betas, given.global_orient[row][None], given.body_pose[row][None], given.transl[row][None])
        transforms = poses.body.transforms(*one)
        root, bones = root_space(transforms, canonical_transforms(poses.body, given.betas))
        torch.testing.assert_close(shown.bone_transforms, bones[0], atol=1e-5, rtol=0)
        back = torch.linalg.inv(shown.world_to_root)
        torch.testing.assert_close(subject.world_to_dataset @ back, root[0], atol=1e-5, rtol=0)
    rest = poses.rest.bone_transforms
    torch.testing.assert_close(rest, torch.eye(4).expand_as(rest), atol=1e-5, rtol=0)
    torch.testing.assert_close(poses.rest.world_to_root, poses.frame(0).world_to_root, atol=1e-5, rtol=0)


def test_training_frames_are_the_corrected_ones(
    subject: Subject, body: BodyModel, refinement: PoseRefinement, poses: PoseProvider
) -> None:
    corrected = PoseProvider(subject, body, refinement, None, "cpu")
    for row in range(ALL):
        assert_same(corrected.frame(row), poses.frame(row))
    with torch.no_grad():
        refinement.remainders[2] = 0.05
    assert_same(corrected.frame(2), poses.frame(2))
    corrected.forget()
    assert (corrected.frame(2).bone_transforms - poses.frame(2).bone_transforms).abs().max() > 1e-3
    assert not corrected.frame(2).bone_transforms.requires_grad
    assert_same(corrected.frame(TRAIN), poses.frame(TRAIN))
    for provider in (corrected, poses):
        assert provider.training_bones().shape == (TRAIN, 24, 4, 4)
        torch.testing.assert_close(provider.training_bones()[2], provider.frame(2).bone_transforms)
        step = provider.training_frame(torch.tensor(2))
        assert_same(step, provider.frame(2))
        assert step.bone_transforms.requires_grad == (provider is corrected)


def test_all_poses_turn_about_the_joints_of_the_refinement(
    subject: Subject, body: BodyModel, refinement: PoseRefinement, motion: Motion
) -> None:
    poses = PoseProvider(subject, body, refinement, motion, "cpu")
    before = [poses.frame(0), poses.frame(ALL - 1), poses.rest, poses.motion_frame(1)]
    offsets = 0.02 * torch.randn(24, 3, generator=torch.Generator().manual_seed(3))
    refinement.joints += offsets
    for _ in range(2):  # joints are not moved once more
        poses.take_joints()
        torch.testing.assert_close(poses.body.joint_offsets, offsets, atol=1e-6, rtol=0)
    assert poses.given_body is body and not body.joint_offsets.any()
    after = [poses.frame(0), poses.frame(ALL - 1), poses.rest, poses.motion_frame(1)]
    for one, other in zip(before, after, strict=True):
        assert (one.bone_transforms - other.bone_transforms).abs().max() > 1e-3


def test_poses_are_the_same_objects_until_they_are_forgotten(poses: PoseProvider) -> None:
    first = [poses.frame(0), poses.rest]
    assert poses.frame(0) is first[0] and poses.rest is first[1]
    poses.forget()
    assert poses.frame(0) is not first[0] and poses.rest is not first[1]
    assert_same(poses.frame(0), first[0])


def test_few_poses_are_kept(poses: PoseProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poses_module, "_KEPT", 2)
    for row in range(5):
        assert poses.frame(row) is poses.frame(row)
        assert len(poses._kept) <= 2


def test_replaced_poses_are_gone_afterwards(poses: PoseProvider) -> None:
    other = poses.frame(7)
    with pytest.raises(RuntimeError), poses.replacing({1: other, 5: other}):
        assert poses.frame(1) is other and poses.frame(5) is other
        raise RuntimeError
    for row in (1, 5):
        assert (poses.frame(row).bone_transforms - other.bone_transforms).abs().max() > 1e-3
