"""SMPL's joints among those of another skeleton: limbs, neck and head by name, the rest by its place in the tree."""

from __future__ import annotations

import re
from pathlib import Path

from instantavatar_ns.motion.bvh import BvhFile
from instantavatar_ns.utils.errors import InputError

_CONVENTIONS = {
    "CMU, Mixamo or MotionBuilder": dict(
        hip="upleg", knee="leg", ankle="foot", foot="toebase toe", shoulder="arm", elbow="forearm", wrist="hand"
    ),
    "Biovision, Xsens or SMPL": dict(
        hip="hip", knee="knee", ankle="ankle", foot="toe foot", shoulder="shoulder", elbow="elbow", wrist="wrist"
    ),
    "Poser, Daz, Rokoko or Rigify": dict(
        hip="thigh",
        knee="shin",
        ankle="foot",
        foot="toe",
        shoulder="shldr upperarm arm",
        elbow="forearm",
        wrist="hand",
    ),
    "Unreal or 3ds Max": dict(
        hip="thigh",
        knee="calf",
        ankle="foot",
        foot="ball toe0 toe",
        shoulder="upperarm",
        elbow="lowerarm forearm",
        wrist="hand",
    ),
    "Xsens MVN, Unity, VRM or Bandai Namco": dict(
        hip="upperleg",
        knee="lowerleg",
        ankle="foot",
        foot="toe toes toebase",
        shoulder="upperarm",
        elbow="lowerarm forearm",
        wrist="hand",
    ),
    "SOMA": dict(
        hip="leg", knee="shin", ankle="foot", foot="toebase toe", shoulder="arm", elbow="forearm", wrist="hand"
    ),
}
"""Names of the limbs' joints beside "left" or "l", by SMPL's, of each program; several where files differ."""
_LIMB_JOINTS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
"""Limbs' joints that a file must have; toes may be missing."""
_SIDES = (("left{}", "right{}"), ("l{}", "r{}"), ("{}left", "{}right"), ("{}l", "{}r"))
_NECKS = ("neck", "neck1", "neck01")
_ADVICE = "Rename its joints to Mixamo's names: Hips, LeftUpLeg, LeftLeg, LeftFoot, LeftArm, LeftForeArm, LeftHand, ..."


def find_joints(path: Path, file: BvhFile) -> dict[str, int]:
    """Find the file's joint for each of SMPL's that it has.

    Args:
        path: The file, for errors only.
        file: Its content.

    Raises:
        InputError: A limb's joint, or both neck and head are missing.
    """
    # Of joints with the same name the first counts.
    indices = {_plain(name): joint for joint, name in reversed(list(enumerate(file.names)))}
    candidates = [
        (program, _limb_joints(indices, names, patterns))
        for program, names in _CONVENTIONS.items()
        for patterns in _SIDES
    ]
    program, found = max(candidates, key=lambda candidate: len(candidate[1]))
    neck = next((name for name in _NECKS if name in indices), None)
    found.update({name: indices[plain] for name, plain in (("neck", neck), ("head", "head")) if plain in indices})
    wanted = [f"{side}_{role}" for side in ("left", "right") for role in _LIMB_JOINTS]
    missing = [name for name in wanted if name not in found]
    if "neck" not in found and "head" not in found:
        missing.append("neck")
    if missing:
        names = ", ".join(file.names[:8]) + (", ..." if len(file.names) > 8 else "")
        nearest = f" (the names are nearest to those of {program})" if len(found) > len(missing) else ""
        message = f"expected a person's joints{nearest}, found none for {', '.join(missing)} among {names}"
        raise InputError(path, message, _ADVICE)
    return {**found, **_trunk_joints(file, found)}


def _plain(name: str) -> str:
    """`mixamorig:LeftUp_Leg` as `leftupleg`; without the prefixes of Mixamo, VRM and 3ds Max."""
    letters = re.sub(r"[^a-z0-9]", "", name.rsplit(":", 1)[-1].lower())
    return re.sub(r"^(mixamorig\d*|jbipc?|bip0*1)(?=.)", "", letters)


def _limb_joints(indices: dict[str, int], names: dict[str, str], patterns: tuple[str, str]) -> dict[str, int]:
    """The limbs' joints under a program's names, with left and right written as in `patterns`."""
    found = {}
    for side, pattern in zip(("left", "right"), patterns, strict=True):
        for role, words in names.items():
            spelt = [pattern.format(word) for word in words.split() if pattern.format(word) in indices]
            if spelt:
                found[f"{side}_{role}"] = indices[spelt[0]]
    return found


def _trunk_joints(file: BvhFile, found: dict[str, int]) -> dict[str, int]:
    """Pelvis, spine, collars and neck, by where the limbs branch off."""
    paths = {name: _path_from_root(file, joint) for name, joint in found.items()}
    shoulders = [paths["left_shoulder"], paths["right_shoulder"]]
    chest = _common(shoulders)
    pelvis = _common([paths["left_hip"], paths["right_hip"], chest])
    trunk = {"pelvis": pelvis[-1]}
    spine = chest[len(pelvis) :]
    if len(spine) == 1:
        trunk["spine2"] = spine[0]
    elif spine:
        trunk["spine1"], trunk["spine3"] = spine[0], spine[-1]
        if len(spine) > 2:
            trunk["spine2"] = spine[len(spine) // 2]
    for side, path in zip(("left", "right"), shoulders, strict=True):
        if len(path) > len(chest) + 1:
            trunk[f"{side}_collar"] = path[len(chest)]
    if "neck" not in found:
        between = paths["head"][len(chest) : -1]
        trunk["neck"] = between[0] if between else found["head"]
    return trunk


def _path_from_root(file: BvhFile, joint: int) -> list[int]:
    path = [joint]
    while file.parents[path[0]] >= 0:
        path.insert(0, int(file.parents[path[0]]))
    return path


def _common(paths: list[list[int]]) -> list[int]:
    """The joints that all paths from the root begin with."""
    length = 0
    while all(len(path) > length and path[length] == paths[0][length] for path in paths):
        length += 1
    return paths[0][:length]
