"""Joints of the two sides of a body, of which each tells of the other."""

from __future__ import annotations

import pytest
import torch

from instantavatar_ns.body.model import JOINT_NAMES, MIRROR_IMAGES, NUM_JOINTS, BodyModel, load_body_model
from instantavatar_ns.correction.symmetry import PATCH, joint_prior, patches

LEFT_KNEE, RIGHT_KNEE, LEFT_WRIST, RIGHT_WRIST, LEFT_HAND, RIGHT_HAND = (
    JOINT_NAMES.index(f"{side}_{name}") for name in ("knee", "wrist", "hand") for side in ("left", "right")
)
BETAS = torch.zeros(10)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body_model("free")


def likeliest(joints: torch.Tensor) -> torch.Tensor:
    """Offsets of the joints before an image is looked at."""
    information, pull = joint_prior(joints)
    torch.linalg.cholesky(information)
    return torch.linalg.solve(information, pull).view(NUM_JOINTS, 3)


def test_a_symmetric_body_has_no_joint_to_move(body: BodyModel) -> None:
    assert likeliest(body.rest(BETAS)[1]).abs().max() < 1e-5


def test_a_joint_and_its_mirror_image_meet_half_way(body: BodyModel) -> None:
    joints = body.rest(BETAS)[1]
    joints[LEFT_KNEE, 1] += 0.01
    offsets = likeliest(joints)
    assert offsets[LEFT_KNEE, 1].item() == pytest.approx(-0.005, abs=1e-4)
    assert offsets[RIGHT_KNEE, 1].item() == pytest.approx(0.005, abs=1e-4)


def test_sides_that_were_not_made_alike_stay(body: BodyModel) -> None:
    """An arm that hangs in the T-pose is no error of the joints, and shifts nothing else."""
    joints = body.rest(BETAS)[1]
    joints[LEFT_WRIST] += torch.tensor([-0.2, -0.3, 0.0])
    assert likeliest(joints).abs().max() < 1e-5


def test_a_patch_is_the_same_on_both_sides(body: BodyModel) -> None:
    """The body seen in a mirror, its left called right, has the same patches; those of a hand are on both hands."""
    vertices, joints = body.rest(BETAS)
    reflection = torch.tensor([-1.0, 1.0, 1.0])
    patch = patches(vertices, body.skinning_weights, joints)
    mirrored = patches(
        vertices * reflection, body.skinning_weights[:, MIRROR_IMAGES], joints[MIRROR_IMAGES] * reflection
    )
    assert (patch == mirrored).float().mean() > 0.99  # some vertices lie between two cells
    hands = [set(patch[body.skinning_weights[:, joint] > 0.9].tolist()) for joint in (LEFT_HAND, RIGHT_HAND)]
    assert hands[0] == hands[1]
    for one in patch.unique():
        assert (vertices[patch == one, 1:].amax(dim=0) - vertices[patch == one, 1:].amin(dim=0)).max() < PATCH + 1e-6
