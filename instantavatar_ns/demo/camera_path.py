"""Cameras that move while they film the demo person, as somebody with a phone would move them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

MovingCamera = Literal["handheld", "carried"]


class CameraPath(NamedTuple):
    """Extents of a motion to both sides of where a still camera would be.

    Attributes:
        around: About the person, degrees.
        above: Above them and below, degrees.
        roll: About its own axis, degrees.
        aim: Of its axis beside the person, sideways and up, degrees.
        away: Share of the distance by which it goes away and comes nearer.
    """

    around: float
    above: float
    roll: float
    aim: float
    away: float


PATHS: dict[MovingCamera, CameraPath] = {
    # Of somebody who stands 5 m off: 40 cm to both sides, 15 cm up and down, and a wandering aim.
    "handheld": CameraPath(around=4.0, above=1.5, roll=2.0, aim=1.0, away=0.02),
    # Of somebody who walks about the person and lifts the phone over their head.
    "carried": CameraPath(around=25.0, above=8.0, roll=3.0, aim=0.0, away=0.06),
}
# Rounds of each in one turn of the person: no two views are alike, and the second turn sees others than the first.
# The distance's are so near to whole ones that its mean over a turn is the still camera's, to a thousandth: a person
# who is smaller in the pictures of one camera would be learned with less detail.
_AROUND, _ABOVE, _ROLL, _AWAY, _SIDEWAYS, _UP = 1.3, 2.1, 2.7, 1.9, 3.1, 3.7


def moving_camera(
    path: CameraPath, phase: Float[ndarray, " frames"], pivot: Float[ndarray, "3"]
) -> Float[ndarray, "frames 4 4"]:
    """Transforms from the world to the camera, which is the world's origin and axes at phase 0.

    Args:
        path: How far it moves.
        phase: Time of each frame, in turns of the person.
        pivot: Point about which it moves, metres; it stays where it is in the picture but for the aim's wandering.
    """

    def swayed(extent: float, rounds: float) -> Float[ndarray, " frames"]:
        return extent * np.sin(2 * np.pi * rounds * phase)

    angles = (swayed(path.above, _ABOVE), swayed(path.around, _AROUND), swayed(path.roll, _ROLL))
    aim = (swayed(path.aim, _UP), swayed(path.aim, _SIDEWAYS), np.zeros_like(phase))
    turn, aimed = (
        Rotation.from_euler("xyz", np.stack(each, axis=1), degrees=True).as_matrix() for each in (angles, aim)
    )
    away = 1 + swayed(path.away, _AWAY)
    result = np.tile(np.eye(4), (len(phase), 1, 1))
    result[:, :3, :3] = aimed @ turn
    result[:, :3, 3] = (aimed @ (pivot * away[:, None] - turn @ pivot)[:, :, None])[:, :, 0]
    return result
