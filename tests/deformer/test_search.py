"""The correspondence search: what is skinned forward is found again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instantavatar_ns.deformer.search import Roots, SearchSettings
from instantavatar_ns.deformer.search_torch import search_roots_torch
from tests.avatars import Avatar, points_near, random_bones

POSES, POINTS_PER_POSE = 10, 2000


@pytest.fixture(scope="module")
def searched(avatar: Avatar) -> list[tuple[Tensor, Tensor, Tensor, Roots]]:
    """Per pose: bone transforms, canonical points, the same points posed, and the roots of those."""
    results = []
    for seed, bones in enumerate(random_bones(avatar.body, POSES)):
        canonical = points_near(avatar.vertices, POINTS_PER_POSE, seed)
        posed = avatar.deformer.skin(canonical, bones)
        results.append((bones, canonical, posed, avatar.deformer(posed, avatar.deformer.pose(bones))))
    return results


def test_points_near_the_body_are_found_again(searched: list[tuple[Tensor, Tensor, Tensor, Roots]]) -> None:
    found = 0
    for _, canonical, _, roots in searched:
        distance = (roots.canonical - canonical[roots.point]).norm(dim=-1)
        nearest = torch.full((len(canonical),), torch.inf).scatter_reduce(0, roots.point, distance, "amin")
        found += int((nearest < 1e-4).sum())
    assert found / (POSES * POINTS_PER_POSE) >= 0.995


def test_every_root_is_skinned_to_its_point(
    avatar: Avatar, searched: list[tuple[Tensor, Tensor, Tensor, Roots]]
) -> None:
    for bones, _, posed, roots in searched:
        error = (avatar.deformer.skin(roots.canonical, bones) - posed[roots.point]).norm(dim=-1)
        assert error.max() < 2e-5
        assert avatar.deformer.box.contains(roots.canonical).all()


def test_roots_come_in_the_order_of_the_points(searched: list[tuple[Tensor, Tensor, Tensor, Roots]]) -> None:
    for _, _, _, roots in searched:
        assert (roots.point[1:] >= roots.point[:-1]).all()


def test_roots_of_a_point_are_distinct_and_some_points_have_several(
    searched: list[tuple[Tensor, Tensor, Tensor, Roots]],
) -> None:
    """Where an arm goes through the chest, both are found, each once."""
    several = 0
    for _, _, _, roots in searched:
        for gap in range(1, 6):
            same_point = roots.point[gap:] == roots.point[:-gap]
            distance = (roots.canonical[gap:] - roots.canonical[:-gap]).norm(dim=-1)
            assert (distance[same_point] >= SearchSettings.same_root).all()
            several += int(same_point.sum()) if gap == 1 else 0
    assert several > 0.03 * POSES * POINTS_PER_POSE


def test_one_rigid_motion_is_inverted_exactly(small_avatar: Avatar) -> None:
    """All bones move alike: every start leads to the same root, which is left once."""
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.4, 0.2], [0.4, 0.0, -0.7], [-0.2, 0.7, 0.0]]))
    bones = torch.eye(4).repeat(24, 1, 1)
    bones[:, :3, :3], bones[:, :3, 3] = turn, torch.tensor([0.3, -2.0, 1.0])
    canonical = points_near(small_avatar.vertices, 1000)
    canonical = canonical[small_avatar.deformer.box.contains(canonical)]
    roots = small_avatar.deformer(canonical @ turn.T + bones[0, :3, 3], small_avatar.deformer.pose(bones))
    assert roots.point.tolist() == list(range(len(canonical)))
    torch.testing.assert_close(roots.canonical, canonical, atol=1e-5, rtol=0)


def test_roots_that_are_near_one_another_count_as_one(avatar: Avatar) -> None:
    bones = random_bones(avatar.body, 9)[8]
    points = avatar.deformer.skin(points_near(avatar.vertices, 1000), bones)
    roots = search_roots_torch(points, avatar.deformer.pose(bones), SearchSettings(same_root=10.0))
    assert len(roots.point.unique()) == len(roots.point)


def test_points_far_from_the_body_have_no_root(avatar: Avatar) -> None:
    posed = avatar.deformer.pose(random_bones(avatar.body, 1)[0])
    far = torch.tensor([[5.0, 0.0, 0.0], [0.0, -30.0, 0.0], [torch.nan, 0.0, 0.0]])
    roots = avatar.deformer(far, posed)
    assert roots.canonical.shape == (0, 3) and roots.point.shape == (0,)


def test_no_points_have_no_roots(avatar: Avatar) -> None:
    roots = avatar.deformer(torch.zeros(0, 3), avatar.deformer.pose(random_bones(avatar.body, 1)[0]))
    assert roots.canonical.shape == (0, 3) and roots.point.shape == (0,)
    assert roots.point.dtype == torch.int64
