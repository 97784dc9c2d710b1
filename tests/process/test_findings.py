"""Faults of a clip are told, each where it is, and a good clip has none."""

import numpy as np
import pytest

from instantavatar_ns.process.findings import find_faults, jumping_frames, poor_overlap, yaw
from instantavatar_ns.process.frames import ChosenFrames
from instantavatar_ns.process.landmarks import Landmarks
from tests.process.test_swaps import turning_landmarks

COUNT = 40
GOOD_FACTS = {"people": 1, "motion": 0.1, "plate": True, "focal_given": True}


def _clip(**changes: object) -> ChosenFrames:
    facts = {
        "source": "clip.mp4",
        "fps": 10.0,
        "rotation": 0,
        "frames": list(range(COUNT)),
        "times": [index / 10 for index in range(COUNT)],
        "sharpness": [1.0] * COUNT,
        "width": 60,
        "height": 80,
        "focal": None,
        "source_frames": COUNT,
    }
    return ChosenFrames(**(facts | changes))


def _landmarks(turn: float = 360.0) -> Landmarks:
    world = turning_landmarks(COUNT, turn=turn)
    ones = np.ones((COUNT, 33), np.float32)
    return Landmarks(np.zeros((COUNT, 33, 2), np.float32), ones, world, np.ones(COUNT, bool))


def _masks() -> np.ndarray:
    masks = np.zeros((COUNT, 80, 60), bool)
    masks[:, 10:70, 20:40] = True
    return masks


def _words(**changes: object) -> list[str]:
    inputs = {"clip": _clip(), "landmarks": _landmarks(), "masks": _masks(), "facts": GOOD_FACTS} | changes
    return [finding.words for finding in find_faults(**inputs)]


def test_good_clip_has_no_faults() -> None:
    assert _words() == []


def test_cut_off_feet_are_told_with_their_frames() -> None:
    masks = _masks()
    masks[5:15, 60:80, 20:40] = True
    (finding,) = find_faults(_clip(), _landmarks(), masks, GOOD_FACTS)
    assert finding.words == "The feet are cut off by the picture's edge in 10 of 40 frames."
    assert finding.frames == tuple(range(5, 15))


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"facts": GOOD_FACTS | {"people": 2}}, "More than one person"),
        ({"facts": GOOD_FACTS | {"motion": 14.2, "plate": False}}, "The camera moves: the background is shifted by 14"),
        ({"facts": GOOD_FACTS | {"motion": None, "plate": False}}, "The camera moves"),
        ({"facts": GOOD_FACTS | {"focal_given": False}}, "The clip does not tell its focal length"),
        ({"landmarks": _landmarks(120)}, "The person turns by some 1"),
        ({"clip": _clip(sharpness=[1.0, 0.3] * (COUNT // 2))}, "20 of 40 frames are blurred"),
        ({"masks": np.pad(_masks()[:, ::4, ::4], ((0, 0), (30, 30), (22, 23)))}, "The person takes 19 %"),
    ],
)
def test_each_fault_is_told_alone(changes: dict, start: str) -> None:
    (words,) = _words(**changes)
    assert words.startswith(start)


def test_focal_of_tags_is_no_assumption() -> None:
    assert _words(clip=_clip(focal=80.0), facts=GOOD_FACTS | {"focal_given": False}) == []


def test_lost_frames_are_told() -> None:
    landmarks = _landmarks()
    landmarks.found[[3, 4]] = False
    landmarks.world[[3, 4]] = 0
    assert _words(landmarks=landmarks) == ["Nobody is found in 2 of 40 frames."]
    assert np.isnan(yaw(landmarks)[3])


def test_direction_follows_a_turn() -> None:
    angles = yaw(_landmarks(360))
    assert abs(angles[-1] - angles[0]) == pytest.approx(360, abs=8)
    assert np.abs(np.diff(angles)).max() < 25


def test_landmarks_that_jump_and_return_are_told() -> None:
    landmarks = _landmarks()
    jumps = [6, 12, 18, 24]
    for index in jumps:
        landmarks.world[index, 11:] += (0.5, 0, 0.3)
    assert set(jumps) <= set(jumping_frames(_clip(), landmarks))
    assert any(words.startswith("Landmarks jump") for words in _words(landmarks=landmarks))
    assert jumping_frames(_clip(), _landmarks()) == []


def test_body_beside_the_mask_is_told() -> None:
    iou = np.full(COUNT, 0.9)
    assert poor_overlap(iou) == []
    iou[10:16] = 0.5
    assert poor_overlap(iou)[0].frames == tuple(range(10, 16))


def test_motion_that_masks_follow_is_told_as_such() -> None:
    (followed,) = _words(facts=GOOD_FACTS | {"motion": 9.0, "plate": False, "followed": True})
    (lost,) = _words(facts=GOOD_FACTS | {"motion": 9.0, "plate": False, "followed": False})
    assert "Masks follow it" in followed and "Masks" not in lost
