"""The correspondence search: what is skinned forward is found again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instantavatar_ns.deformer._search_triton import follow_roots, search_roots_triton
from instantavatar_ns.deformer.search import PosedSkinning, RootBuffer, Roots, SearchSettings, search_roots
from tests.avatars import Avatar, points_near, random_bones

POSES, POINTS_PER_POSE = 10, 2000
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


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
    roots = search_roots(points, avatar.deformer.pose(bones), SearchSettings(same_root=10.0))
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


# The Triton kernels, on the GPU if there is one, else in Triton's interpreter

SETTINGS = SearchSettings()


@pytest.fixture(scope="module")
def posed_points(avatar: Avatar) -> tuple[Tensor, PosedSkinning]:
    """Points near the body in a pose in which some have several roots, and far from it; on the device."""
    bones = random_bones(avatar.body, 2)[1]
    near = avatar.deformer.skin(points_near(avatar.vertices, 250), bones)
    far = torch.tensor([[5.0, 0.0, 0.0], [torch.nan, 0.0, 0.0]])
    return torch.cat([near, far]).to(DEVICE), avatar.deformer.to(DEVICE).pose(bones.to(DEVICE))


@pytest.fixture(scope="module")
def roots(posed_points: tuple[Tensor, PosedSkinning]) -> RootBuffer:
    return search_roots_triton(*posed_points, SETTINGS, 1024)


def roots_of(buffer: RootBuffer, point: int) -> Tensor:
    return buffer.canonical[int(buffer.first[point]) :][: int(buffer.number[point])]


def test_buffered_roots_are_the_twins(posed_points: tuple[Tensor, PosedSkinning], roots: RootBuffer) -> None:
    twin = search_roots(*posed_points, SETTINGS)
    assert (twin.point.bincount() > 1).sum() > 5
    missed = 0
    for root, point in zip(twin.canonical, twin.point.tolist(), strict=True):
        found = roots_of(roots, point)
        missed += not len(found) or float((found - root).norm(dim=-1).min()) > 1e-4
    assert missed <= 0.001 * len(twin.point)
    assert int(roots.count) == roots.number.sum() and int(roots.count) == pytest.approx(len(twin.point), rel=0.002)


def test_buffered_roots_are_skinned_to_their_points(
    avatar: Avatar, posed_points: tuple[Tensor, PosedSkinning], roots: RootBuffer
) -> None:
    points, posed = posed_points
    for point in range(len(points)):
        found = roots_of(roots, point)
        assert (roots.point[int(roots.first[point]) :][: len(found)] == point).all()
        error = avatar.deformer.skin(found, posed.bone_transforms) - points[point]
        assert (error.norm(dim=-1) < 1e-4).all()
        if len(found) > 1:
            assert torch.pdist(found).min() >= SETTINGS.same_root


def test_buffer_tells_of_roots_that_it_cannot_hold(
    posed_points: tuple[Tensor, PosedSkinning], roots: RootBuffer
) -> None:
    few = search_roots_triton(*posed_points, SETTINGS, 100)
    assert int(few.count) == int(roots.count) and few.number.sum() == 100
    assert (few.first + few.number <= 100).all() and (few.number <= roots.number).all()


def test_points_beyond_the_count_have_no_roots(posed_points: tuple[Tensor, PosedSkinning], roots: RootBuffer) -> None:
    number = torch.tensor([100], dtype=torch.int32, device=DEVICE)
    some = search_roots_triton(*posed_points, SETTINGS, 1024, num_points=number)
    assert torch.equal(some.number[:100], roots.number[:100]) and not some.number[100:].any()
    more = search_roots_triton(*posed_points, SETTINGS, 1024, num_points=100 * number)
    assert torch.equal(more.number, roots.number), "as of a buffer of samples that overflowed"


def test_roots_in_free_cells_are_left_out(posed_points: tuple[Tensor, PosedSkinning], roots: RootBuffer) -> None:
    points, posed = posed_points
    occupied = torch.zeros(posed.box.resolution, dtype=torch.bool, device=DEVICE)
    occupied[: posed.box.resolution[0] // 2] = True
    right = search_roots_triton(points, posed, SETTINGS, 1024, occupied=occupied)
    middle = (posed.box.lower[0] + posed.box.upper[0]) / 2
    expected = roots.canonical[: int(roots.count)]
    assert int(right.count) == (expected[:, 0] < middle).sum() and 0 < int(right.count) < len(expected)
    assert (right.canonical[: int(right.count), 0] < middle).all()


def test_gradients_of_buffered_roots_are_the_twins(
    avatar: Avatar, posed_points: tuple[Tensor, PosedSkinning], roots: RootBuffer
) -> None:
    points, posed = posed_points[0][:120], posed_points[1]
    pick = torch.randn(3, generator=torch.Generator().manual_seed(0)).to(DEVICE)

    def gradients(canonical: Tensor, point: Tensor, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Of a function of the roots that no order of them changes."""
        return torch.autograd.grad(((canonical @ pick) * torch.sin(1 + point)).sum(), leaves)

    leaves = points.clone().requires_grad_(True), posed.bone_transforms.clone().requires_grad_(True)
    twin = avatar.deformer(leaves[0], avatar.deformer.pose(leaves[1]))
    expected = gradients(twin.canonical, twin.point, leaves)
    buffer = search_roots_triton(points, posed, SETTINGS, 1024)
    followed = follow_roots(buffer, leaves[0], avatar.deformer.pose(leaves[1]), avatar.deformer.skinning_weights)
    there = slice(0, int(buffer.count))
    ours = gradients(followed[there], buffer.point[there], leaves)
    for gradient, reference in zip(ours, expected, strict=True):
        assert (gradient - reference).norm() < 1e-3 * reference.norm()
