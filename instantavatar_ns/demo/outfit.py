"""Regions of the demo subject's clothes and hair, as functions of the position on the naked body in the T-pose.

Regions are given as depths in metres: positive inside, zero on the hem, negative outside. The same functions move the
surface outwards (`demo_subject`) and colour it (`demo_texture`), so that hems and colours coincide at any resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from instantavatar_ns.body.smpl import JOINT_NAMES

BELT_HEIGHT = 0.036
# Height of the hairline above the eyes by the angle from straight ahead: forehead, temple, sideburn, ear, nape.
_HAIRLINE_ANGLE = [0.0, 0.5, 0.8, 1.02, 1.15, 1.33, 1.45, 1.85, 2.0, 2.4, np.pi]
_HAIRLINE_HEIGHT = [0.068, 0.064, 0.052, 0.015, -0.02, -0.02, 0.002, 0.000, -0.02, -0.066, -0.076]


@dataclass(frozen=True)
class Landmarks:
    """Places on the naked body in the T-pose, metres; y is up, the body faces +z, its left is +x.

    Attributes:
        joints: Positions of SMPL's joints by name.
        eyes: Between the eyes' centres, on the eyes' surface.
        eye_spacing: Distance of each eye's centre from the middle plane.
        mouth: Centre of the lips.
        brows: Height of the eyebrows' middle.
        skull: Centre of the round of the skull.
        floor: Height of the soles.
    """

    joints: dict[str, Float[ndarray, "3"]]
    eyes: Float[ndarray, "3"]
    eye_spacing: float
    mouth: Float[ndarray, "3"]
    brows: float
    skull: Float[ndarray, "3"]
    floor: float

    @property
    def waist(self) -> float:
        """Height of the belt's upper edge."""
        return float(self.joints["pelvis"][1]) + 0.085

    @property
    def shoe_top(self) -> float:
        """Height of the shoes' opening."""
        return float(self.joints["left_ankle"][1]) + 0.004

    @property
    def trouser_hem(self) -> float:
        """Height of the trousers' lower edge."""
        return float(self.joints["left_ankle"][1]) + 0.016

    @property
    def sleeve_end(self) -> float:
        """Distance of the sleeves' hems from the middle plane."""
        return float(0.38 * self.joints["left_shoulder"][0] + 0.62 * self.joints["left_elbow"][0])


def find_landmarks(
    vertices: Float[ndarray, "vertices 3"],
    joints: Float[ndarray, "joints 3"],
    parts: dict[str, Bool[ndarray, " vertices"]],
) -> Landmarks:
    """Find the landmarks of a body in the T-pose.

    Args:
        vertices: Vertices of the naked body, metres.
        joints: SMPL's joints, metres.
        parts: Vertices of each region, by the free body's names.
    """
    eyes = vertices[parts["eyes"]]
    scalp = vertices[parts["scalp"]]
    middle = [0.0, eyes[:, 1].mean(), eyes[:, 2].mean()]
    return Landmarks(
        joints=dict(zip(JOINT_NAMES, joints.astype(np.float64), strict=True)),
        eyes=np.array(middle),
        eye_spacing=float(np.abs(eyes[:, 0]).mean()),
        mouth=vertices[parts["lips"]].mean(axis=0) * [0.0, 1.0, 1.0],
        brows=float(vertices[parts["eyebrows"]][:, 1].mean()),
        skull=np.array([0.0, middle[1] + 0.02, 0.5 * (scalp[:, 2].min() + middle[2])]),
        floor=float(vertices[:, 1].min()),
    )


def shirt_depth(points: Float[ndarray, "n 3"], marks: Landmarks) -> Float[ndarray, " n"]:
    """Depth inside the T-shirt, which is tucked into the belt.

    Args:
        points: On the naked body in the T-pose, metres.
        marks: The body's landmarks.
    """
    hems = [points[:, 1] - marks.waist, -neckline_height(points, marks), marks.sleeve_end - np.abs(points[:, 0])]
    return np.min(hems, axis=0)


def neckline_height(points: Float[ndarray, "n 3"], marks: Landmarks) -> Float[ndarray, " n"]:
    """Height over the T-shirt's neckline, a slanted ring round the neck that is lower in front.

    Args:
        points: On the naked body in the T-pose, metres.
        marks: The body's landmarks.
    """
    neck = marks.joints["neck"]
    beside = np.maximum(np.abs(points[:, 0]) - 0.068, 0.0)
    return points[:, 1] - neck[1] + 0.005 + 0.40 * (points[:, 2] - neck[2]) - 1.3 * beside


def belt_depth(points: Float[ndarray, "n 3"], marks: Landmarks) -> Float[ndarray, " n"]:
    """Depth inside the belt, which lies on the trousers' upper edge.

    Args:
        points: On the naked body in the T-pose, metres.
        marks: The body's landmarks.
    """
    return np.minimum(marks.waist - points[:, 1], points[:, 1] - marks.waist + BELT_HEIGHT)


def trousers_depth(points: Float[ndarray, "n 3"], marks: Landmarks) -> Float[ndarray, " n"]:
    """Depth inside the trousers.

    Args:
        points: On the naked body in the T-pose, metres.
        marks: The body's landmarks.
    """
    return np.minimum(marks.waist - points[:, 1], points[:, 1] - marks.trouser_hem)


def shoe_depth(points: Float[ndarray, "n 3"], marks: Landmarks) -> Float[ndarray, " n"]:
    """Depth inside the shoes, whose opening rises towards heel and tongue.

    Args:
        points: On the naked body in the T-pose, metres.
        marks: The body's landmarks.
    """
    ankle = marks.joints["left_ankle"]
    return marks.shoe_top + 0.10 * np.abs(points[:, 2] - ankle[2]) - points[:, 1]


def hair_depth(points: Float[ndarray, "n 3"], marks: Landmarks) -> Float[ndarray, " n"]:
    """Depth inside the hair: height over a hairline that runs from the forehead round the ears to the nape.

    Args:
        points: On the naked body in the T-pose, metres.
        marks: The body's landmarks.
    """
    offset = points - marks.skull
    angle = np.arctan2(np.abs(offset[:, 0]), offset[:, 2])
    hairline = np.interp(angle, _HAIRLINE_ANGLE, _HAIRLINE_HEIGHT)
    return points[:, 1] - marks.eyes[1] - hairline


def smooth_step(depth: Float[ndarray, "..."], width: float) -> Float[ndarray, "..."]:
    """0 outside, 1 inside, smooth over `width` about the hem.

    Args:
        depth: Depth inside a region, metres.
        width: Over which it goes from 0 to 1, metres.
    """
    t = np.clip(depth / width + 0.5, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
