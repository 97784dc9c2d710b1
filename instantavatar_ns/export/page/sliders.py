"""The joints that the page's sliders bend: those that readers know by name, within angles that a person reaches."""

from __future__ import annotations

from typing import NamedTuple

Vector = tuple[float, float, float]


class Slider(NamedTuple):
    """A way in which joints turn.

    Attributes:
        label: What a reader sees.
        joints: The joints, which share the turn.
        axis: Axis in the T-pose, in which x points to the person's left, y up and z ahead; it moves with the bone.
        range: Smallest and largest angle, degrees.
    """

    label: str
    joints: tuple[str, ...]
    axis: Vector
    range: tuple[int, int]


_SPINE, _NECK = ("spine1", "spine2", "spine3"), ("neck", "head")


def _limb(side: str) -> dict[str, tuple[Slider, ...]]:
    """An arm and a leg. Mirrored at the person's middle an axis of rotation keeps its x."""
    sign = 1.0 if side == "left" else -1.0
    forward = (0.0, -sign, 0.0)
    return {
        f"{side.title()} arm": (
            Slider("Raise", (f"{side}_shoulder",), (0.0, 0.0, sign), (-30, 120)),
            Slider("Forward", (f"{side}_shoulder",), forward, (-30, 90)),
            Slider("Bend elbow", (f"{side}_elbow",), forward, (0, 130)),
        ),
        f"{side.title()} leg": (
            Slider("Raise", (f"{side}_hip",), (-1.0, 0.0, 0.0), (-30, 90)),
            Slider("Sideways", (f"{side}_hip",), (0.0, 0.0, sign), (-10, 45)),
            Slider("Bend knee", (f"{side}_knee",), (1.0, 0.0, 0.0), (0, 120)),
        ),
    }


_LIMBS = _limb("left") | _limb("right")
SLIDERS: dict[str, tuple[Slider, ...]] = {
    "Head": (
        Slider("Turn", _NECK, (0.0, 1.0, 0.0), (-70, 70)),
        Slider("Nod", _NECK, (1.0, 0.0, 0.0), (-40, 40)),
        Slider("Tilt", _NECK, (0.0, 0.0, -1.0), (-35, 35)),
    ),
    "Trunk": (
        Slider("Bend forward", _SPINE, (1.0, 0.0, 0.0), (-30, 80)),
        Slider("Lean", _SPINE, (0.0, 0.0, -1.0), (-40, 40)),
        Slider("Turn", _SPINE, (0.0, 1.0, 0.0), (-60, 60)),
    ),
    **{name: _LIMBS[name] for name in ("Left arm", "Right arm", "Left leg", "Right leg")},
}
