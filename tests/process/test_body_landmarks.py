"""The network's landmarks, found on bodies."""

from __future__ import annotations

import numpy as np
import torch

from instantavatar_ns.body.model import NUM_BETAS, load_body_model
from instantavatar_ns.process.body_landmarks import MIRRORED_LANDMARKS, body_landmarks


def test_landmarks_lie_where_people_have_them() -> None:
    body = load_body_model("free")
    vertices, joints = body.rest(torch.zeros(NUM_BETAS))
    landmarks = body_landmarks(body)
    place = (joints[landmarks.bone] + landmarks.offset).numpy()
    np.testing.assert_allclose(place[MIRRORED_LANDMARKS], place * [-1, 1, 1], atol=5e-3)
    nose, left_eye, left_ear, left_mouth = place[[0, 2, 7, 9]]
    assert left_mouth[1] < nose[1] < left_eye[1] < vertices[:, 1].max()
    assert nose[2] > left_eye[2] > left_ear[2]
    shoulder, elbow, wrist, pinky, index, thumb = place[[11, 13, 15, 17, 19, 21]]
    assert shoulder[0] < elbow[0] < wrist[0] < pinky[0] < vertices[:, 0].max()
    assert pinky[2] < index[2] < thumb[2] + 0.05
    heel, toe, ankle = place[[29, 31, 27]]
    assert heel[2] < ankle[2] < toe[2]
    assert heel[1] < ankle[1]
    distance = (torch.cdist(torch.from_numpy(place).float(), vertices)).amin(dim=1)
    assert distance[[0, 7, 8, 29, 30]].max() < 0.01  # on the surface
    assert distance.max() < 0.12


def test_the_right_side_mirrors_the_left_in_number() -> None:
    assert [MIRRORED_LANDMARKS[other] for other in MIRRORED_LANDMARKS] == list(range(33))
    assert MIRRORED_LANDMARKS[11] == 12
    assert MIRRORED_LANDMARKS[31] == 32
