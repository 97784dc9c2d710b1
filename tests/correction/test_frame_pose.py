"""A frame's pose by the kernel, and its gradient: those of torch. On a GPU if there is one, else interpreted."""

from __future__ import annotations

import pytest
import torch

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.kinematics import descendants
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.correction.refinement import PoseRefinement

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FRAMES = 7


@pytest.fixture(scope="module")
def refinement() -> PoseRefinement:
    body, drawn = load_body_model("free"), torch.Generator().manual_seed(0)
    angles = 0.4 * torch.randn(FRAMES, 72, generator=drawn)
    transl = torch.tensor([0.2, -0.3, 3.0]) + 0.2 * torch.randn(FRAMES, 3, generator=drawn)
    poses = PoseSequence(0.5 * torch.randn(10, generator=drawn), angles[:, :3], angles[:, 3:], transl)
    world = torch.tensor([[0.0, 1, 0, 0.3], [-1, 0, 0, -0.2], [0, 0, 1, 1.5], [0, 0, 0, 1]])
    refinement = PoseRefinement(body, poses, 4.0 * torch.arange(FRAMES), world, knot_spacing=8.0)
    refinement.joints += 0.01 * torch.randn(refinement.joints.shape, generator=drawn)
    return refinement.to(DEVICE)


@pytest.mark.parametrize("size", [0.0, 0.02, 0.6])
def test_pose_and_gradient_are_those_of_torch(refinement: PoseRefinement, size: float) -> None:
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for values in refinement.parameters():
            values.copy_(size * torch.randn(values.shape, generator=drawn))
    row, results = torch.tensor([4], device=DEVICE), []
    picks = [torch.randn(shape, generator=drawn).to(DEVICE) for shape in ((3, 4), (24, 3, 4))]
    for by_kernel in (True, False):
        if by_kernel:
            body = refinement._by_kernel(row)
            transforms = body.world_to_root, body.bone_transforms
        else:
            rotations, transl = refinement.given_rotations[row], refinement.given_transl[row]
            transforms = [each[0] for each in refinement._pose(refinement._live(row), rotations, transl)]
        loss = sum((pick * each[..., :3, :]).sum() for pick, each in zip(picks, transforms, strict=True))
        results.append((*transforms, *torch.autograd.grad(loss, [refinement.knots, refinement.remainders])))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5 * float(theirs.detach().abs().max()), rtol=1e-4)
    knots, remainders = results[0][2:]
    assert torch.equal(knots.ne(0).any(dim=1), refinement.basis[4].ne(0)), "RowAdam lets the other rows rest"
    assert remainders.ne(0).any(dim=1).tolist() == [frame == 4 for frame in range(FRAMES)]


def test_descendants_are_found_down_the_tree() -> None:
    moves = descendants(torch.tensor([4, 0, 0, 1]))
    assert moves.tolist() == [[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]
