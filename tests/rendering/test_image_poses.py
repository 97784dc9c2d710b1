"""Which pose an image shows, and how long it is kept."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from instantavatar_ns.body.bank import PosedBody
from instantavatar_ns.rendering import image_poses
from instantavatar_ns.rendering.image_poses import ImagePoses

TRAIN_ROWS = [2, 3, 4, 5, 6, 7, 8, 9]


def bank(size: int) -> list[PosedBody]:
    """Stands in for a bank."""
    return [PosedBody(torch.eye(4), torch.eye(4).repeat(24, 1, 1)) for _ in range(size)]


def image_poses_of(motion=None, refinement=None) -> ImagePoses:
    return ImagePoses(
        bank(12),  # pyright: ignore[reportArgumentType]
        bank(1),  # pyright: ignore[reportArgumentType]
        motion,
        TRAIN_ROWS,
        refinement,
        prepare=lambda body: SimpleNamespace(body=body),  # pyright: ignore[reportArgumentType]
    )


def test_pose_id_comes_before_time_and_time_before_rest() -> None:
    poses, metadata = image_poses_of(), {"pose_id": torch.tensor([[9], [3]])}
    assert poses.resolve(torch.tensor([[0.0]]), metadata) == ("poses", 9)
    assert poses.resolve(None, metadata) == ("poses", 9)
    assert poses.resolve(torch.tensor([[1.0]]), {"other": torch.ones(1)}) == ("poses", 9)
    assert poses.resolve(torch.tensor([[1.0]]), None) == ("poses", 9)
    assert poses.resolve(None, {}) == ("rest_pose", 0)


@pytest.mark.parametrize(
    ("time", "frame"), [(-0.3, 0), (0.0, 0), (0.5, 4), (0.9, 6), (1.0, 7), (1.2, 7), (math.nan, 0)]
)
def test_time_plays_the_training_poses_and_stops_at_their_ends(time: float, frame: int) -> None:
    assert image_poses_of().resolve(torch.tensor([time]), None) == ("poses", TRAIN_ROWS[frame])


def test_time_plays_a_motion_where_there_is_one() -> None:
    poses = image_poses_of(motion=bank(4))
    assert poses.resolve(torch.tensor([0.4]), None) == ("motion", 1)
    assert poses.resolve(torch.tensor([7.0]), None) == ("motion", 3)
    assert poses.resolve(torch.tensor([0.4]), {"pose_id": torch.tensor([2])}) == ("poses", 2)


def test_first_poses_of_the_data_are_the_corrected_ones() -> None:
    refinement, motion = bank(3), bank(4)
    poses = image_poses_of(motion, refinement)
    assert poses.posed_body("poses", 2) is refinement[2]
    assert poses.posed_body("poses", 3) is poses.banks["poses"][3]
    assert poses.posed_body("motion", 2) is motion[2]
    poses.banks["more"] = {"named": motion[0]}
    assert poses.posed_body("more", "named") is motion[0]


def test_poses_are_prepared_once_until_they_are_forgotten() -> None:
    poses = image_poses_of()
    first = poses.prepared("poses", 0)
    assert poses.prepared("poses", 0) is first and first.body is poses.kept_body("poses", 0)
    poses.forget()
    assert poses.prepared("poses", 0) is not first


def test_pose_that_was_not_used_for_longest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_poses, "_KEPT", 2)
    poses = image_poses_of()
    kept, dropped = poses.prepared("poses", 0), poses.prepared("poses", 1)
    assert poses.prepared("poses", 0) is kept
    poses.prepared("poses", 2)
    assert poses.prepared("poses", 0) is kept, "used last"
    assert poses.prepared("poses", 1) is not dropped


def test_replaced_poses_are_gone_afterwards() -> None:
    poses, (other,) = image_poses_of(refinement=bank(3)), bank(1)
    before = {row: poses.prepared("poses", row).body for row in (1, 5)}
    with pytest.raises(RuntimeError), poses.replacing({1: other, 5: other}):
        assert poses.prepared("poses", 1).body is other and poses.prepared("poses", 5).body is other
        raise RuntimeError
    assert {row: poses.prepared("poses", row).body for row in (1, 5)} == before
