"""Values carried on over a body's surface."""

from __future__ import annotations

import pytest
import torch
import trimesh
from torch import Tensor

from instantavatar_ns.unseen.completion import Completion


@pytest.fixture(scope="module")
def tube() -> tuple[Tensor, Tensor]:
    """A cylinder along y, symmetric about x = 0, of even triangles."""
    rings, around = 41, 24
    y, angle = torch.meshgrid(
        torch.linspace(-0.5, 0.5, rings), torch.arange(around) * 2 * torch.pi / around, indexing="ij"
    )
    vertices = torch.stack([0.1 * angle.cos(), y, 0.1 * angle.sin()], dim=-1).reshape(-1, 3)
    index = torch.arange(rings * around).view(rings, around)
    a, b = index[:-1], index[1:]
    c, d = a.roll(-1, 1), b.roll(-1, 1)
    faces = torch.cat([torch.stack([a, b, c], -1).reshape(-1, 3), torch.stack([c, b, d], -1).reshape(-1, 3)])
    return vertices, faces


def test_known_values_stay(tube: tuple[Tensor, Tensor]) -> None:
    vertices, faces = tube
    known = vertices[:, 2] > 0
    values = torch.rand(len(vertices), 3)
    assert torch.equal(Completion(vertices, faces, known)(values)[known], values[known])


def test_height_is_harmonic_along_a_tube(tube: tuple[Tensor, Tensor]) -> None:
    """Between two rings of known values a harmonic function is linear."""
    vertices, faces = tube
    known = vertices[:, 1].abs() > 0.3
    completed = Completion(vertices, faces, known, mirrored=False)(torch.where(known, vertices[:, 1], 9.0)[:, None])
    torch.testing.assert_close(completed[:, 0], vertices[:, 1], atol=0.01, rtol=0)


def test_values_stay_within_those_known(tube: tuple[Tensor, Tensor]) -> None:
    vertices, faces = tube
    known = vertices[:, 2] > 0.03
    completed = Completion(vertices, faces, known)(torch.rand(len(vertices), 3))
    assert completed.min() >= 0 and completed.max() <= 1


def test_mirror_image_is_taken_where_only_one_side_is_known(tube: tuple[Tensor, Tensor]) -> None:
    vertices, faces = tube
    known = vertices[:, 0] > 0.01
    values = torch.stack([vertices[:, 1], vertices[:, 2]], dim=-1)
    completed = Completion(vertices, faces, known)(torch.where(known[:, None], values, 9.0))
    left = vertices[:, 0] < -0.01
    torch.testing.assert_close(completed[left], values[left], atol=0.03, rtol=0)
    alone = Completion(vertices, faces, known, mirrored=False)(torch.where(known[:, None], values, 9.0))
    assert (alone - values)[left].abs().max() > 0.04, "without mirror images the far side is smooth"


def test_part_without_known_vertices_takes_the_nearest() -> None:
    body, shoe = trimesh.creation.icosphere(2, 0.3), trimesh.creation.icosphere(2, 0.1)
    shoe.apply_translation([0, -0.6, 0])
    whole = trimesh.util.concatenate([body, shoe])
    vertices, faces = torch.from_numpy(whole.vertices).float(), torch.from_numpy(whole.faces).long()
    known = torch.arange(len(vertices)) < len(body.vertices)
    completed = Completion(vertices, faces, known)(vertices[:, 1:2])
    assert (completed[~known] < -0.2).all() and (completed[~known] >= -0.3).all()


@pytest.mark.parametrize("all_known", [True, False])
def test_nothing_to_do(tube: tuple[Tensor, Tensor], all_known: bool) -> None:
    vertices, faces = tube
    values = torch.rand(len(vertices), 1)
    completion = Completion(vertices, faces, torch.full((len(vertices),), all_known))
    assert torch.equal(completion(values), values)


def test_smoothing_takes_noise_and_leaves_constants(tube: tuple[Tensor, Tensor]) -> None:
    vertices, faces = tube
    completion = Completion(vertices, faces, torch.ones(len(vertices), dtype=torch.bool))
    noise = torch.randn(len(vertices), 1, generator=torch.Generator().manual_seed(0))
    assert completion.smooth(noise).std() < 0.4 * noise.std()
    torch.testing.assert_close(completion.smooth(torch.ones(len(vertices), 1)), torch.ones(len(vertices), 1))


def test_peaks_go_and_rows_stay(tube: tuple[Tensor, Tensor]) -> None:
    vertices, faces = tube
    completion = Completion(vertices, faces, torch.ones(len(vertices), dtype=torch.bool))
    flat = torch.full((len(vertices), 1), 0.01)
    row = torch.where(vertices[:, 1:2].abs() < 0.01, 0.02, flat)
    torch.testing.assert_close(completion.without_peaks(row), row)
    for peak in ([500], [500, int(faces[(faces == 500).any(dim=1)][0].roll(1)[0])]):
        spiky = flat.clone()
        spiky[peak] = 0.08
        torch.testing.assert_close(completion.without_peaks(spiky), flat)


def test_values_go_around_a_tube_rather_than_along_it(tube: tuple[Tensor, Tensor]) -> None:
    """Two colours meet in the middle of the front; behind, they meet as sharply."""
    vertices, faces = tube
    known = vertices[:, 2] > 0.03
    along = torch.diag(torch.tensor([0.0, 1.0, 0.0])).expand(len(vertices), 3, 3)
    upper = (vertices[:, 1:2] > 0.012).float()
    errors = {}
    for name, directions in (("around", along), ("alike", None)):
        completed = Completion(vertices, faces, known, lengthwise=directions)(torch.where(known[:, None], upper, 9.0))
        errors[name] = (completed - upper)[~known & (vertices[:, 1].abs() > 0.05)].abs().max()
    assert errors["around"] < 0.12 and errors["alike"] > 0.3, errors
