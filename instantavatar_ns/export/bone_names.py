"""Names of bones that engines and retargeting tools know: Mixamo's, for a skeleton that has SMPL's."""

from __future__ import annotations

from instantavatar_ns.export.glb_container import read_glb, write_glb

_MIDDLE = {
    "pelvis": "Hips",
    "spine1": "Spine",
    "spine2": "Spine1",
    "spine3": "Spine2",
    "neck": "Neck",
    "head": "Head",
}
_SIDES = {
    "hip": "UpLeg",
    "knee": "Leg",
    "ankle": "Foot",
    "foot": "ToeBase",
    "collar": "Shoulder",
    "shoulder": "Arm",
    "elbow": "ForeArm",
    "wrist": "Hand",
    "hand": "HandMiddle1",
    **{
        f"{finger}{joint}": f"Hand{name}{joint}"
        for finger, name in (
            ("thumb", "Thumb"),
            ("index", "Index"),
            ("middle", "Middle"),
            ("ring", "Ring"),
            ("pinky", "Pinky"),
        )
        for joint in (1, 2, 3)
    },
}
MIXAMO = _MIDDLE | {
    f"{side}_{smpl}": side.capitalize() + name for side in ("left", "right") for smpl, name in _SIDES.items()
}
"""Mixamo's names by those of the joints of SMPL, SMPL-H and SMPL-X."""


def with_mixamo_names(content: bytes) -> bytes:
    """Give the joints of a GLB file Mixamo's names; joints of other names than SMPL's keep theirs.

    Args:
        content: Of the file.
    """
    document, binary = read_glb(content)
    for joint in {joint for skin in document["skins"] for joint in skin["joints"]}:
        node = document["nodes"][joint]
        node["name"] = MIXAMO.get(node["name"], node["name"])
    return write_glb(document, binary)
