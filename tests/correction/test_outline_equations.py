"""Equations of outlines: the arrow-shaped solution is that of one dense matrix, and derivatives are those of motion."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_body_pose
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.kinematics import skinned, skinning_transforms
from instantavatar_ns.body.model import BodyModel, rotation_matrices
from instantavatar_ns.body.smpl import NUM_JOINTS
from instantavatar_ns.correction.motion_prior import KnotPrior
from instantavatar_ns.correction.outline_equations import Equations, OutlineEquations, join
from instantavatar_ns.correction.windows import Span

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body_model("free")


@pytest.fixture(scope="module")
def problem(body: BodyModel) -> OutlineEquations:
    return OutlineEquations(body, torch.zeros(10), 0.2)


def positive(size: int) -> Tensor:
    factor = torch.randn(size, size, generator=GENERATOR, dtype=torch.double)
    return factor @ factor.T + size * torch.eye(size)


def random_equations(knots: int, shared: int) -> Equations:
    size = knots * 75
    whole, right = positive(size + shared), torch.randn(size + shared, generator=GENERATOR, dtype=torch.double)
    return Equations(whole[:size, :size], whole[:size, size:], whole[size:, size:], right[:size], right[size:])


def test_windows_with_a_common_border_are_solved_as_one_matrix(problem: OutlineEquations) -> None:
    shared, knots = len(problem.pull), (2, 3)
    equations = [random_equations(number, shared) for number in knots]
    priors = [
        KnotPrior(
            torch.stack([positive(number) for _ in range(25)]),
            torch.randn(number, 25, 3, generator=GENERATOR, dtype=torch.double),
            torch.tensor(1.5).double(),
        )
        for number in knots
    ]
    found = problem.solve(equations, priors)

    of_priors = [
        torch.einsum("jab,jk,rs->ajrbks", p.precision, torch.eye(25).double(), torch.eye(3).double()) for p in priors
    ]
    blocks = torch.block_diag(
        *(e.matrix + p.reshape(e.matrix.shape) for e, p in zip(equations, of_priors, strict=True))
    )
    border = torch.cat([e.border for e in equations])
    corner = problem.precision + sum(e.corner for e in equations)
    whole = torch.cat([torch.cat([blocks, border], dim=1), torch.cat([border.T, corner], dim=1)])
    right = torch.cat(
        [
            *(e.right + p.pull.flatten() for e, p in zip(equations, priors, strict=True)),
            problem.pull + sum(e.right_shared for e in equations),
        ]
    )
    unknowns = torch.linalg.solve(whole, right)
    parts = [*(knots.flatten() for knots in found.knots), found.joint_offsets.flatten(), found.clothes]
    torch.testing.assert_close(torch.cat(parts), unknowns)
    assert found.evidence == pytest.approx(float(0.5 * right @ unknowns - 0.5 * torch.logdet(whole) + 3.0))


def test_a_window_has_the_equations_of_its_cells() -> None:
    cells = [Span(slice(0, 8), slice(0, 4)), Span(slice(8, 16), slice(1, 5)), Span(slice(16, 24), slice(2, 6))]
    equations = [random_equations(4, 3) for _ in cells]
    window = join(equations, cells, Span(slice(8, 24), slice(1, 6)))
    expected = torch.zeros(375, 375).double()
    expected[:300, :300] += equations[1].matrix
    expected[75:, 75:] += equations[2].matrix
    torch.testing.assert_close(window.matrix, expected)
    torch.testing.assert_close(window.corner, equations[1].corner + equations[2].corner)
    torch.testing.assert_close(window.border[-75:], equations[2].border[-75:])


def test_derivatives_are_those_of_the_posed_body(body: BodyModel, problem: OutlineEquations) -> None:
    """Of where an edge's middle goes, along some direction, by finite differences of skinning."""
    pose = torch.cat([torch.ones(3), canonical_body_pose(body)])
    rotations = rotation_matrices(pose.view(1, NUM_JOINTS, 3)).double()
    rest, weights = body.rest(torch.zeros(10))[0].double(), body.skinning_weights.double()
    edges = torch.arange(0, len(problem.edges), 1500)
    slope = torch.nn.functional.normalize(torch.randn(len(edges), 3, generator=GENERATOR, dtype=torch.double), dim=-1)

    def transforms(unknowns: Tensor) -> Tensor:
        turns, shift, offsets = unknowns[:72].view(1, 24, 3), unknowns[72:75], unknowns[75:].view(24, 3)
        joints = problem.joints.double() + offsets
        turned = rotation_matrices(turns) @ rotations
        return skinning_transforms(turned, shift[None] + torch.tensor([0.0, 0.0, 4.0]), joints, body.ancestors)

    def distances(unknowns: Tensor) -> Tensor:
        vertices = skinned(rest, weights, transforms(unknowns))[0]
        return (vertices[problem.edges[edges]].mean(dim=1) * slope).sum(dim=-1)

    zero = torch.zeros(147).double()
    expected = torch.func.jacrev(distances)(zero)
    center, derivatives = problem._derivatives(transforms(zero), problem.joints.double())
    point = skinned(rest, weights, transforms(zero))[0][problem.edges[edges]].mean(dim=1)
    screw = torch.cat([torch.linalg.cross(point - center[0], slope), slope], dim=1)
    found = (screw @ derivatives[0]).unflatten(1, (-1, 3)) * problem.share[edges][..., None]
    # The middle of an edge between bones is taken to move with the mean of its skinning weights, and the root's place
    # to change nothing.
    found, expected = found.flatten(1), expected.clone()
    expected[:, 75:78] = 0
    assert (found - expected).abs().max() < 0.02
    assert expected.abs().max() > 0.5
