"""Samples along rays in occupied cells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instantavatar_ns.occupancy.cells import OccupiedCells
from instantavatar_ns.rendering.march import SampleBuffer, sample_rays, sample_rays_torch
from instantavatar_ns.rendering.march_triton import sample_rays_triton
from instantavatar_ns.rendering.nerfacc_cuda import nerfacc_cuda

STEP = 0.05
SHAPE = (8, 6, 4)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
AABB = torch.tensor([-1.0, -0.5, 0.25, 1.0, 1.0, 1.25])
needs_nerfacc = pytest.mark.skipif(not nerfacc_cuda(), reason="needs a GPU and nerfacc's CUDA functions")


def some_cells(share: float = 0.3) -> OccupiedCells:
    return OccupiedCells(AABB, torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < share)


def some_rays(count: int) -> tuple[Tensor, Tensor]:
    """Rays from all around and from inside the box, most of which meet it."""
    generator = torch.Generator().manual_seed(1)
    origins = 2 * torch.randn(count, 3, generator=generator)
    origins[: count // 8] = torch.tensor([0.3, 0.2, 0.7])
    aim = torch.rand(count, 3, generator=generator) * (AABB[3:] - AABB[:3]) * 1.4 + AABB[:3] - 0.2
    return origins, torch.nn.functional.normalize(aim - origins, dim=-1)


def samples_one_by_one(origins: Tensor, directions: Tensor, cells: OccupiedCells) -> list[tuple[int, int]]:
    """Ray and number of each step whose middle lies in an occupied cell."""
    found = []
    size = (cells.aabb[3:] - cells.aabb[:3]) / torch.tensor(SHAPE)
    for ray in range(len(origins)):
        for step in range(200):
            point = origins[ray] + (step + 0.5) * STEP * directions[ray]
            x, y, z = ((point - cells.aabb[:3]) / size).floor().long().tolist()
            if 0 <= x < SHAPE[0] and 0 <= y < SHAPE[1] and 0 <= z < SHAPE[2] and cells.binaries[x, y, z]:
                found.append((ray, step))
    return found


def test_samples_are_the_steps_whose_middles_lie_in_occupied_cells() -> None:
    (origins, directions), cells = some_rays(48), some_cells()
    samples = sample_rays_torch(origins, directions, cells, STEP, stratified=False)
    steps = (samples.t_starts / STEP).round().long()
    expected = samples_one_by_one(origins, directions, cells)
    assert len(expected) > 100
    assert list(zip(samples.ray_indices.tolist(), steps.tolist(), strict=True)) == expected
    torch.testing.assert_close(samples.t_starts, steps * STEP)
    torch.testing.assert_close(samples.t_ends, samples.t_starts + STEP)


def test_full_box_is_sampled_along_its_whole_chord() -> None:
    """One metre through the box along z, at whatever distance it begins."""
    origins = torch.tensor([[0.0, 0.0, -3.0], [0.5, 0.5, -1.017], [0.9, 0.9, 4.0]])
    directions = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    full = OccupiedCells(AABB, torch.ones(SHAPE, dtype=torch.bool))
    for stratified in (False, True):
        samples = sample_rays_torch(origins, directions, full, STEP, stratified)
        assert (samples.ray_indices.bincount(minlength=3) - 20).abs().max() <= 1
        middles = (samples.t_starts + samples.t_ends) / 2
        z = origins[samples.ray_indices, 2] + middles * directions[samples.ray_indices, 2]
        assert z.min() > 0.25 and z.max() < 1.25


def test_stratified_samples_are_shifted_by_a_part_of_a_step_per_ray() -> None:
    torch.manual_seed(0)
    origins = torch.tensor([[0.0, 0.0, -3.0]]).expand(200, 3)
    directions = torch.tensor([[0.0, 0.0, 1.0]]).expand(200, 3)
    full = OccupiedCells(AABB, torch.ones(SHAPE, dtype=torch.bool))
    samples = sample_rays_torch(origins, directions, full, STEP, stratified=True)
    first = torch.full((200,), torch.inf).scatter_reduce(0, samples.ray_indices, samples.t_starts, "amin")
    middle = first + STEP / 2 - 3.25  # behind the face of the box
    assert middle.min() >= -1e-5 and middle.max() <= STEP + 1e-5
    assert middle.std() == pytest.approx(STEP / 12**0.5, rel=0.15), "uniform over a step"
    same_ray = samples.ray_indices[1:] == samples.ray_indices[:-1]
    torch.testing.assert_close(
        (samples.t_starts[1:] - samples.t_starts[:-1])[same_ray], torch.tensor(STEP).expand(int(same_ray.sum()))
    )


def test_samples_do_not_change_with_the_box_that_holds_the_cells() -> None:
    origins, directions = some_rays(64)
    cells = some_cells()
    edge = (AABB[3:] - AABB[:3]) / torch.tensor(SHAPE)
    larger = OccupiedCells(
        torch.cat([AABB[:3] - edge, AABB[3:] + edge]), torch.nn.functional.pad(cells.binaries, (1, 1, 1, 1, 1, 1))
    )
    samples = sample_rays_torch(origins, directions, cells, STEP, stratified=False)
    again = sample_rays_torch(origins, directions, larger, STEP, stratified=False)
    assert len(samples.t_starts) == pytest.approx(len(again.t_starts), abs=3), "but for rounding at borders of cells"


@pytest.mark.parametrize(
    "direction", [[0.0, 0.0, -1.0], [1.0, 0.0, 0.0]], ids=["box behind the ray", "box beside the ray"]
)
def test_rays_that_miss_the_box_have_no_samples(direction: list[float]) -> None:
    samples = sample_rays(torch.tensor([[0.0, 0.0, -3.0]]), torch.tensor([direction]), some_cells(), STEP, False)
    assert [len(part) for part in samples] == [0, 0, 0]


def test_no_occupied_cell_and_no_rays_give_no_samples() -> None:
    origins, directions = some_rays(16)
    assert len(sample_rays(origins, directions, some_cells(0.0), STEP, True).t_starts) == 0
    assert len(sample_rays(origins[:0], directions[:0], some_cells(), STEP, True).t_starts) == 0


@needs_nerfacc
def test_nerfaccs_samples_are_the_twins() -> None:
    (origins, directions), cells = some_rays(4096), some_cells()
    twin = sample_rays_torch(origins, directions, cells, STEP, stratified=False)
    on_gpu = OccupiedCells(cells.aabb.cuda(), cells.binaries.cuda())
    samples = sample_rays(origins.cuda(), directions.cuda(), on_gpu, STEP, stratified=False)
    ours = {(ray, round(t / STEP)) for ray, t in zip(twin.ray_indices.tolist(), twin.t_starts.tolist(), strict=True)}
    theirs = {
        (ray, round(t / STEP)) for ray, t in zip(samples.ray_indices.tolist(), samples.t_starts.tolist(), strict=True)
    }
    assert len(ours ^ theirs) < 0.01 * len(ours), "but for rounding at borders of cells"


def buffered(origins: Tensor, directions: Tensor, cells: OccupiedCells, capacity: int, stratified: bool = False):
    """Samples of the Triton kernel, on the GPU if there is one, else in Triton's interpreter."""
    cells = OccupiedCells(cells.aabb.to(DEVICE), cells.binaries.to(DEVICE))
    samples = sample_rays_triton(origins.to(DEVICE), directions.to(DEVICE), cells, STEP, stratified, capacity)
    return SampleBuffer(*(getattr(samples, name).cpu() for name in SampleBuffer.__dataclass_fields__))


def rows_of(samples: SampleBuffer, ray: int) -> slice:
    return slice(int(samples.starts[ray]), int(samples.starts[ray] + samples.counts[ray]))


def test_buffered_samples_are_the_twins() -> None:
    (origins, directions), cells = some_rays(100), some_cells()
    origins[0], directions[0] = torch.tensor([0.0, 0.0, -3.0]), torch.tensor([0.0, 0.0, 1.0])  # along two axes' planes
    twin = sample_rays_torch(origins, directions, cells, STEP, stratified=False)
    samples = buffered(origins, directions, cells, capacity=4096)
    assert int(samples.total) == samples.counts.sum()
    ours = {
        (ray, round(t / STEP)) for ray in range(len(origins)) for t in samples.t_starts[rows_of(samples, ray)].tolist()
    }
    theirs = {(ray, round(t / STEP)) for ray, t in zip(twin.ray_indices.tolist(), twin.t_starts.tolist(), strict=True)}
    assert len(theirs) > 100 and len(ours ^ theirs) <= 0.01 * len(theirs), "but for rounding at borders of cells"
    assert len(ours) == int(samples.total)


def test_buffered_samples_of_a_ray_lie_together_and_in_order() -> None:
    samples = buffered(*some_rays(100), some_cells(), capacity=4096, stratified=True)
    taken = torch.zeros(int(samples.total), dtype=torch.long)
    for ray in range(100):
        rows = rows_of(samples, ray)
        taken[rows] += 1
        assert (samples.ray_indices[rows] == ray).all()
        assert (samples.t_starts[rows].diff() > 0.99 * STEP).all()
    assert (taken == 1).all()


def test_buffered_samples_are_shifted_by_a_part_of_a_step_per_ray() -> None:
    torch.manual_seed(0)
    origins, directions = (torch.tensor([row]).expand(100, 3) for row in ([0.0, 0.0, -3.0], [0.0, 0.0, 1.0]))
    full = OccupiedCells(AABB, torch.ones(SHAPE, dtype=torch.bool))
    samples = buffered(origins, directions, full, capacity=4096, stratified=True)
    middle = samples.t_starts[samples.starts.long()] + STEP / 2 - 3.25  # behind the face of the box
    assert middle.min() >= -1e-5 and middle.max() <= STEP + 1e-5
    assert middle.std() == pytest.approx(STEP / 12**0.5, rel=0.2), "uniform over a step"


def test_buffer_keeps_the_number_of_what_it_cannot_hold() -> None:
    (origins, directions), cells = some_rays(100), some_cells()
    everything = buffered(origins, directions, cells, capacity=4096)
    capacity = int(everything.total) // 3
    samples = buffered(origins, directions, cells, capacity)
    assert samples.total == everything.total
    assert samples.counts.sum() == capacity and (samples.counts <= everything.counts).all()
    assert (samples.starts + samples.counts <= capacity).all()
    for ray in range(100):
        kept = samples.t_starts[rows_of(samples, ray)]
        assert torch.equal(kept, everything.t_starts[rows_of(everything, ray)][: len(kept)]), "the first of the ray"


def test_buffer_of_no_rays_and_of_empty_cells_is_empty() -> None:
    origins, directions = some_rays(16)
    assert int(buffered(origins, directions, some_cells(0.0), capacity=64).total) == 0
    assert int(buffered(origins[:0], directions[:0], some_cells(), capacity=64).total) == 0
