"""Which bones the search starts from."""

from __future__ import annotations

import pytest
import torch

from instantavatar_ns.deformer.voxels import interpolate
from tests.avatars import Avatar, points_near, random_bones


@pytest.mark.parametrize("pose", range(3))
def test_the_bone_that_explains_a_point_is_named(avatar: Avatar, pose: int) -> None:
    bones = random_bones(avatar.body, 3)[pose]
    canonical = points_near(avatar.vertices, 3000, seed=pose)
    main_bone = interpolate(avatar.deformer.skinning_weights, canonical, avatar.deformer.box).argmax(dim=-1)
    candidates = avatar.deformer.pose(bones).candidates.of(avatar.deformer.skin(canonical, bones))
    assert candidates.gather(1, main_bone[:, None]).float().mean() > 0.999


@pytest.mark.parametrize("body", ["avatar", "small_avatar"])
def test_the_bone_is_named_in_a_flat_pose_too(body: str, request: pytest.FixtureRequest) -> None:
    """The canonical pose is half a metre thick: a fortieth of that is less than the distance between voxels."""
    person: Avatar = request.getfixturevalue(body)
    points = points_near(person.vertices, 3000)
    main_bone = interpolate(person.deformer.skinning_weights, points, person.deformer.box).argmax(dim=-1)
    candidates = person.deformer.pose(torch.eye(4).repeat(24, 1, 1)).candidates.of(points)
    assert candidates.gather(1, main_bone[:, None]).float().mean() > 0.999


def test_few_bones_are_named(avatar: Avatar) -> None:
    """Else the search would be as slow as from all of them."""
    bones = random_bones(avatar.body, 1)[0]
    points = avatar.deformer.skin(points_near(avatar.vertices, 3000), bones)
    number = avatar.deformer.pose(bones).candidates.of(points).sum(dim=-1)
    assert 1.5 < number.float().mean() < 4.5
    assert number.max() <= 12


def test_nothing_is_named_outside_the_posed_box(avatar: Avatar) -> None:
    candidates = avatar.deformer.pose(random_bones(avatar.body, 1)[0]).candidates
    lower, upper = candidates.posed_box
    middle, half = (lower + upper) / 2, (upper - lower) / 2
    directions = torch.cat([torch.eye(3), -torch.eye(3)])
    assert not candidates.of(middle + 1.001 * half * directions).any()
    assert not candidates.of(torch.full((1, 3), torch.nan)).any()
    assert not candidates.of(torch.full((1, 3), torch.inf)).any()
    assert candidates.of(middle + 0.999 * half * directions).shape == (6, 24)


def test_posed_box_holds_the_posed_body(avatar: Avatar) -> None:
    for bones in random_bones(avatar.body, 3):
        lower, upper = avatar.deformer.pose(bones).candidates.posed_box
        posed = avatar.deformer.skin(avatar.vertices, bones)
        assert ((posed > lower) & (posed < upper)).all()
