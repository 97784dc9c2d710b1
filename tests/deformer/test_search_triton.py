"""The search's kernels against the torch search: on the GPU where there is one, else by Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instantavatar_ns.deformer import fast_snarf
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.deformer.search import PosedSkinning, RootBuffer, SearchSettings
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.utils.errors import InputError
from tests.avatars import Avatar, body_density, points_near, random_bones

pytest.importorskip("triton")
search_triton = pytest.importorskip("instantavatar_ns.deformer.search_triton")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SAME = 1e-4  # metres


def deformer_with(avatar: Avatar, implementation: str, **settings) -> FastSnarfDeformer:
    chosen = SearchSettings(implementation=implementation, **settings)  # pyright: ignore[reportArgumentType]
    deformer = FastSnarfDeformer(avatar.vertices, avatar.body.skinning_weights, avatar.deformer.box.resolution, chosen)
    return deformer.to(DEVICE)


@pytest.fixture(scope="module")
def reference(small_avatar: Avatar) -> FastSnarfDeformer:
    return deformer_with(small_avatar, "torch")


@pytest.fixture(scope="module")
def kernels(small_avatar: Avatar) -> FastSnarfDeformer:
    return deformer_with(small_avatar, "triton")


@pytest.fixture(scope="module")
def bones(small_avatar: Avatar) -> Tensor:
    return random_bones(small_avatar.body, 3)[2].to(DEVICE)


@pytest.fixture(scope="module")
def posed(kernels: FastSnarfDeformer, bones: Tensor) -> PosedSkinning:
    return kernels.pose(bones)


@pytest.fixture(scope="module")
def points(small_avatar: Avatar, bones: Tensor, reference: FastSnarfDeformer) -> Tensor:
    return reference.skin(points_near(small_avatar.vertices, 1500).to(DEVICE), bones)


def by_point(roots: RootBuffer) -> list[Tensor]:
    """Roots of each point, read through `starts` and `counts`, and checked against the other buffers."""
    lists = []
    for point, (start, count) in enumerate(zip(roots.starts.tolist(), roots.counts.tolist(), strict=True)):
        assert (roots.point[start : start + count] == point).all()
        lists.append(roots.canonical[start : start + count])
    return lists


def share_found(wanted: RootBuffer, roots: RootBuffer) -> float:
    """Share of the wanted roots that are among the others."""
    pairs = [
        (one - other).norm(dim=-1).amin() < SAME if len(other) else torch.tensor(False, device=one.device)
        for many, other in zip(by_point(wanted), by_point(roots), strict=True)
        for one in many
    ]
    return float(torch.stack(pairs).float().mean())


def test_pose_is_prepared_as_in_torch(reference: FastSnarfDeformer, bones: Tensor, posed: PosedSkinning) -> None:
    expected = reference.pose(bones)
    torch.testing.assert_close(posed.blended, expected.blended, atol=1e-6, rtol=0)
    torch.testing.assert_close(posed.to_canonical, expected.to_canonical, atol=1e-5, rtol=0)
    for kernel, torch_box in zip(posed.candidates.posed_box, expected.candidates.posed_box, strict=True):
        torch.testing.assert_close(kernel, torch_box, atol=1e-5, rtol=0)
    # A voxel on the border of two cells may fall to either.
    assert (posed.candidates.masks != expected.candidates.masks).float().mean() < 1e-4


def test_inverse_is_that_of_any_affine_transforms(kernels: FastSnarfDeformer) -> None:
    bones = torch.eye(4).repeat(24, 1, 1)
    bones[:, :3] += 0.3 * torch.randn(24, 3, 4, generator=torch.Generator().manual_seed(1))
    inverse = kernels.pose(bones.to(DEVICE)).to_canonical.transpose(1, 2).cpu()
    torch.testing.assert_close(inverse @ bones, torch.eye(4).repeat(24, 1, 1), atol=1e-5, rtol=0)


def test_roots_are_those_of_torch(
    small_avatar: Avatar, reference: FastSnarfDeformer, kernels: FastSnarfDeformer
) -> None:
    bones = random_bones(small_avatar.body, 1, seed=7)[0].to(DEVICE)
    canonical = points_near(small_avatar.vertices, 4000, seed=1).to(DEVICE)
    points = reference.skin(canonical, bones)
    expected = reference.find_correspondences_into(points, reference.pose(bones), 2 * len(points))
    roots = kernels.find_correspondences_into(points, kernels.pose(bones), 2 * len(points))
    count = int(roots.total)
    assert count == int(roots.counts.sum()) <= 2 * len(points)
    assert share_found(expected, roots) >= 0.999
    assert share_found(roots, expected) >= 0.999
    error = reference.skin(roots.canonical[:count], bones) - points[roots.point[:count].long()]
    assert error.norm(dim=-1).max() < 2e-5
    assert reference.box.contains(roots.canonical[:count]).all()


def test_roots_of_a_point_are_distinct_and_some_points_have_several(
    kernels: FastSnarfDeformer, posed: PosedSkinning, points: Tensor
) -> None:
    roots = by_point(kernels.find_correspondences_into(points, posed, 2 * len(points)))
    several = [many for many in roots if len(many) > 1]
    assert len(several) >= 10
    assert all(torch.pdist(many).min() >= SAME for many in several)


def test_many_programs_share_the_buffers(
    kernels: FastSnarfDeformer, posed: PosedSkinning, points: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = kernels.find_correspondences_into(points[:150], posed, 400)
    monkeypatch.setattr(search_triton, "_INTERPRETED_BLOCK", 64)
    apart = kernels.find_correspondences_into(points[:150], posed, 400)
    assert torch.equal(apart.total, together.total) and torch.equal(apart.counts, together.counts)
    torch.testing.assert_close(torch.cat(by_point(apart)), torch.cat(by_point(together)), atol=1e-6, rtol=0)


def test_overflow_is_counted_and_nothing_is_written_beyond(
    kernels: FastSnarfDeformer, posed: PosedSkinning, points: Tensor
) -> None:
    points = points[:400]
    full = kernels.find_correspondences_into(points, posed, 2 * len(points))
    capacity = len(points) // 3
    roots = kernels.find_correspondences_into(points, posed, capacity)
    assert torch.equal(roots.total, full.total), "the true total"
    assert roots.canonical.shape == (capacity, 3) and int(roots.counts.sum()) == capacity
    assert all(len(one) <= len(other) for one, other in zip(by_point(roots), by_point(full), strict=True))
    none = kernels.find_correspondences_into(points, posed, 0)
    assert torch.equal(none.total, full.total) and not none.counts.any()


def test_points_beyond_their_number_are_left_out(
    kernels: FastSnarfDeformer,
    posed: PosedSkinning,
    points: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_triton, "_INTERPRETED_BLOCK", 128)
    few = torch.tensor([70], dtype=torch.int32, device=DEVICE)
    roots = kernels.find_correspondences_into(points[:256], posed, 400, num_points=few)
    alone = kernels.find_correspondences_into(points[:70].clone(), posed, 400)
    assert torch.equal(roots.total, alone.total)
    assert torch.equal(roots.counts[:70], alone.counts) and not roots.counts[70:].any()
    more = torch.tensor([5000], dtype=torch.int32, device=DEVICE)
    assert torch.equal(kernels.find_correspondences_into(points[:70], posed, 400, num_points=more).counts, alone.counts)


@pytest.mark.parametrize("resolution", [(48, 48, 12), (20, 30, 10)])
def test_roots_in_free_cells_are_dropped(
    reference: FastSnarfDeformer,
    kernels: FastSnarfDeformer,
    posed: PosedSkinning,
    points: Tensor,
    resolution: tuple[int, int, int],
) -> None:
    occupied = (torch.rand(resolution, generator=torch.Generator().manual_seed(0)) < 0.5).to(DEVICE)
    points, capacity = points[:300], 600
    expected = reference.find_correspondences_into(points, posed, capacity, occupied=occupied)
    roots = kernels.find_correspondences_into(points, posed, capacity, occupied=occupied)
    assert 0.3 < int(roots.total) / int(kernels.find_correspondences_into(points, posed, capacity).total) < 0.7
    assert share_found(expected, roots) > 0.98, "a root on the border of two cells may fall to either"
    assert share_found(roots, expected) > 0.98


def test_bones_that_lead_to_free_cells_are_left_out_and_no_root_is_lost(
    small_avatar: Avatar, reference: FastSnarfDeformer, kernels: FastSnarfDeformer, bones: Tensor, points: Tensor
) -> None:
    occupancy = CanonicalOccupancy(kernels.box)
    occupancy.refresh(body_density(small_avatar.vertices, small_avatar.body.faces))
    occupied = occupancy.binaries[0].to(DEVICE)
    everywhere, confined, expected = (
        deformer.pose(bones, *cells).candidates
        for deformer, cells in ((kernels, ()), (kernels, (occupied,)), (reference, (occupied,)))
    )
    assert (confined.masks == expected.masks).float().mean() > 0.999, "cells at a border may fall to either side"
    torch.testing.assert_close(confined.lower, expected.lower, atol=1e-5, rtol=0)
    torch.testing.assert_close(confined.cell, expected.cell, atol=1e-6, rtol=0)
    assert (confined.lower >= everywhere.lower - 1e-5).all() and (confined.cell <= everywhere.cell + 1e-6).all()
    named, before = (int(each.of(points).sum()) for each in (confined, everywhere))
    assert 0 < named < 0.95 * before
    some, capacity = points[:400], 1200
    found, wanted = (
        kernels.find_correspondences_into(some, kernels.pose(bones, *cells), capacity, occupied=occupied)
        for cells in ((occupied,), ())
    )
    assert int(wanted.total) > 300 and share_found(wanted, found) > 0.995
    nowhere = kernels.pose(bones, torch.zeros_like(occupied))
    assert kernels.find_correspondences_into(some, nowhere, capacity).total == 0
    assert not nowhere.candidates.of(some).any()
    with pytest.raises(ValueError, match="one cell a voxel"):
        kernels.pose(bones, occupied[:-1])


def test_points_without_candidates_have_no_root(kernels: FastSnarfDeformer, posed: PosedSkinning) -> None:
    far = torch.tensor([[5.0, 0.0, 0.0], [0.0, -30.0, 0.0], [torch.nan, 0.0, 0.0], [0.0, torch.inf, 0.0]])
    roots = kernels.find_correspondences_into(far.to(DEVICE), posed, 10)
    assert roots.total == 0 and not roots.counts.any()
    none = kernels.find_correspondences_into(far[:0].to(DEVICE), posed, 10)
    assert none.total == 0 and none.starts.shape == none.counts.shape == (0,)


def test_extra_points_come_first_and_change_nothing(
    reference: FastSnarfDeformer, kernels: FastSnarfDeformer, bones: Tensor, points: Tensor
) -> None:
    extra = torch.rand(52, 3, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    gradients, drawn = [], torch.randn(800, 3, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    for deformer, capacity in ((reference, 120), (kernels, 120), (kernels, 30)):
        found = []
        for first in (None, extra):
            leaf = bones.clone().requires_grad_(True)
            roots = deformer.find_correspondences_into(points[:60], deformer.pose(leaf), capacity, extra=first)
            rows = 0 if first is None else len(first)
            assert roots.canonical.shape == (capacity + rows, 3) and roots.point.shape == (capacity + rows,)
            assert torch.equal(roots.canonical[:rows].detach(), extra[:rows])
            taken = roots.point[rows : min(int(roots.total), capacity + rows)].long()
            slope = torch.zeros_like(roots.canonical)
            slope[rows : rows + len(taken)] = drawn[taken]
            slope[:rows] = torch.nan
            slope[rows + len(taken) :] = torch.nan
            if deformer is kernels:
                (gradient,) = torch.autograd.grad(roots.canonical, leaf, slope)
                gradients.append(gradient)
            assert (roots.starts[roots.counts > 0] >= rows).all()
            found.append((int(roots.total) - rows, roots.counts.sum()))
        assert found[0] == found[1] and found[0][1] == min(capacity, found[0][0])
    assert gradients[0].norm() > 0
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4 * float(gradients[0].abs().max()), rtol=1e-3)


def test_gradients_are_those_of_torch(
    reference: FastSnarfDeformer, kernels: FastSnarfDeformer, bones: Tensor, points: Tensor
) -> None:
    gradients = []
    for deformer in (reference, kernels):
        leaves = bones.clone().requires_grad_(True), points[:800].clone().requires_grad_(True)
        roots = deformer.find_correspondences_into(leaves[1], deformer.pose(leaves[0]), 1600)
        slope = torch.sin(10 * roots.canonical.detach())  # the same for a root in whatever row
        written = torch.arange(1600, device=DEVICE) < roots.total
        (torch.where(written[:, None], roots.canonical, 0.0) * slope).sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    (bones_torch, points_torch), (bones_kernel, points_kernel) = gradients
    assert bones_kernel.abs().amax(dim=(1, 2)).min() > 0, "every bone moves something"
    assert (bones_kernel - bones_torch).norm() < 1e-3 * bones_torch.norm()
    # Both find the same roots but for one in thousands, and roots at the border of voxels have either slope.
    error = (points_kernel - points_torch).norm(dim=-1) / points_torch.norm(dim=-1)
    assert (error < 1e-3).float().mean() > 0.995


def test_gradients_agree_with_differences_of_searches(
    small_avatar: Avatar, kernels: FastSnarfDeformer, bones: Tensor, points: Tensor
) -> None:
    """Searches in double precision, of the points that have one root, in ten directions of all the numbers."""
    exact = deformer_with(small_avatar, "torch", max_steps=40, converged=1e-12).double()
    leaves = bones.clone().requires_grad_(True), points[:60].clone().requires_grad_(True)
    roots = kernels.find_correspondences_into(leaves[1], kernels.pose(leaves[0]), 200)
    generator, step = torch.Generator().manual_seed(5), 1e-7

    def find(bones: Tensor, points: Tensor) -> RootBuffer:
        return exact.find_correspondences_into(points, exact.pose(bones), 200)

    base = find(bones.double(), points[:60].double())
    single = [point for point in range(60) if base.counts[point] == 1 and roots.counts[point] == 1]
    assert len(single) > 40
    rows, kernel_rows = base.starts[single].long(), roots.starts[single].long()
    compared = []
    for _ in range(10):
        bone_step = torch.zeros(24, 4, 4, dtype=torch.float64)
        bone_step[:, :3] = torch.randn(24, 3, 4, generator=generator, dtype=torch.float64)
        point_step = torch.randn(60, 3, generator=generator, dtype=torch.float64)
        slope = torch.randn(3, generator=generator).to(DEVICE)
        bone_step, point_step = bone_step.to(DEVICE), point_step.to(DEVICE)
        after, before = (
            find(bones.double() + sign * step * bone_step, points[:60].double() + sign * step * point_step)
            for sign in (1, -1)
        )
        numeric = (after.canonical[rows] - before.canonical[rows]) @ slope.double() / (2 * step)
        which = int(torch.randint(len(single), (1,), generator=generator))
        gradients = torch.autograd.grad(roots.canonical[kernel_rows[which]] @ slope, leaves, retain_graph=True)
        analytic = (gradients[0] * bone_step).sum() + (gradients[1] * point_step).sum()
        compared.append(abs(float(analytic - numeric[which])) < 0.01 * abs(float(numeric[which])) + 1e-3)
    assert sum(compared) >= 9, "one may lie where voxels meet"


def test_unused_rows_take_no_gradient(
    kernels: FastSnarfDeformer, posed: PosedSkinning, points: Tensor, bones: Tensor
) -> None:
    """Rows beyond the count hold anything, and so may their gradients."""
    leaf = points[:50].clone().requires_grad_(True)
    roots = kernels.find_correspondences_into(leaf, posed, 200)
    gradient = torch.full((200, 3), torch.nan, device=DEVICE)
    gradient[: int(roots.total)] = 1.0
    roots.canonical.backward(gradient)
    assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad.abs().sum(dim=-1).min() > 0


def test_torch_fills_the_same_buffers(reference: FastSnarfDeformer, posed: PosedSkinning, points: Tensor) -> None:
    """The reference itself, against the plain list of roots."""
    plain = reference(points[:200], posed)
    few = torch.tensor([120], dtype=torch.int32, device=DEVICE)
    roots = reference.find_correspondences_into(points[:200], posed, 90, num_points=few)
    torch.testing.assert_close(roots.canonical, plain.canonical[:90], atol=0, rtol=0)
    assert torch.equal(roots.point.long(), plain.point[:90])
    assert int(roots.total) == int((plain.point < 120).sum())
    assert int(roots.counts.sum()) == 90 and not roots.counts[120:].any()
    by_point(roots)


def test_without_a_gpu_the_user_is_told(
    kernels: FastSnarfDeformer, bones: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(InputError, match="needs a CUDA GPU"):
        kernels.pose(bones.cpu())


def test_torch_is_the_default() -> None:
    """Until the kernels have been measured."""
    assert SearchSettings().implementation == "torch"
    assert fast_snarf.SearchSettings is SearchSettings
