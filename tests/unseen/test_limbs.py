"""Garments on the free body: which way its parts run, and colours that are carried on around them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instantavatar_ns.unseen.completion import Completion
from instantavatar_ns.unseen.coverage import surface_normals
from instantavatar_ns.unseen.limbs import lengthwise
from tests.avatars import BETAS, Avatar

_SHIRT, _JEANS, _SKIN, _SHOES = (0.7, 0.1, 0.1), (0.3, 0.45, 0.6), (0.85, 0.65, 0.55), (0.1, 0.1, 0.1)
_OFF = 0.15  # of a colour channel: another garment's, or on the way to it


def _largest_part(avatar: Avatar, *names: str) -> Tensor:
    """Vertices [V] that hang most on one of some joints."""
    joint_names = avatar.body.rig.joint_names
    chosen = torch.tensor([any(name in joint for name in names) for joint in joint_names])
    return chosen[avatar.body.skinning_weights.argmax(dim=1)]


def _garments(avatar: Avatar) -> Tensor:
    """Colours [V, 3] of a jumper, cropped jeans, shoes and skin."""
    height = avatar.vertices[:, 1]
    waist = height[_largest_part(avatar, "pelvis")].median()
    hem = height[_largest_part(avatar, "knee")].quantile(0.4)
    is_leg = _largest_part(avatar, "hip", "knee", "ankle", "foot")
    is_arm = _largest_part(avatar, "shoulder", "elbow")
    colors = torch.tensor(_SHIRT).expand(len(height), 3).clone()
    for where, color in (
        ((height < waist) & ~is_arm, _JEANS),
        (is_leg & (height < hem), _SKIN),
        (_largest_part(avatar, "ankle", "foot"), _SHOES),
        (_largest_part(avatar, "wrist", "hand", "head", "neck"), _SKIN),
    ):
        colors[where] = torch.tensor(color)
    return colors


def _errors_behind(avatar: Avatar, along: Tensor | None) -> Tensor:
    """Largest error of a channel [V] of colours carried on from the front; NaN in front."""
    faces, colors = avatar.body.faces, _garments(avatar)
    known = surface_normals(avatar.vertices, faces)[:, 2] > 0.2
    carried_on = Completion(avatar.vertices, faces, known, lengthwise=along)(torch.where(known[:, None], colors, 9.0))
    return torch.where(known, torch.nan, (carried_on - colors).abs().amax(dim=1))


@pytest.fixture(scope="module")
def along(small_avatar: Avatar) -> Tensor:
    return lengthwise(small_avatar.body, BETAS)


@pytest.mark.parametrize(
    ("joints", "share", "mean"),
    [(("pelvis", "spine", "collar", "hip", "knee"), 0.10, 0.045), (("ankle", "foot"), 0.05, 0.03)],
)
def test_back_continues_the_garments_of_the_front(
    small_avatar: Avatar, along: Tensor, joints: tuple[str, ...], share: float, mean: float
) -> None:
    part = _largest_part(small_avatar, *joints)
    errors, alike = (_errors_behind(small_avatar, directions)[part] for directions in (along, None))
    errors, alike = errors[~errors.isnan()], alike[~alike.isnan()]
    assert (errors > _OFF).float().mean() < share and errors.mean() < mean
    assert (alike > _OFF).float().mean() > 2 * share and alike.mean() > 2 * mean, "it fails without directions"


def test_directions_are_those_of_the_bones(small_avatar: Avatar, along: Tensor) -> None:
    """A thigh's is that from hip to knee, not upright; hands go on as forearms; the head has none."""

    def of(joint: str) -> Tensor:
        weights = small_avatar.body.skinning_weights[:, small_avatar.body.rig.joint_names.index(joint)]
        return along[weights.argmax()]

    for joint, expected in (
        ("spine2", (0.0, 1.0, 0.0)),
        ("left_hip", (0.2, -1.0, 0.0)),
        ("right_elbow", (-0.7, -0.7, 0.0)),
        ("right_hand", (-0.7, -0.7, 0.0)),
        ("left_foot", (0.2, -1.0, 0.0)),
    ):
        direction = torch.nn.functional.normalize(torch.tensor(expected), dim=0)
        assert direction @ of(joint) @ direction > 0.98, joint
    assert of("head").abs().max() < 0.02
