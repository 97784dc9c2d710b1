"""BVH files: a skeleton and its motion, as text.

An own reader, because those on PyPI do not suit files that users bring: bvhio 1.5 never returns from a file that ends
early and insists on CHANNELS after every OFFSET, bvhTools 1.6 splits lines at single blanks and brings a game library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.spatial.transform import Rotation

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

_ADVICE = "Export the motion again as BVH"
_MAX_FPS = 100_000.0


@dataclass(frozen=True)
class BvhFile:
    """A skeleton and its motion as a BVH file has them, in its own units and axes.

    Attributes:
        names: The joints' names; parents come before their children.
        parents: Index of each joint's parent, -1 for the root.
        rest: Positions in the rest pose, in which all rotations are zero.
        rotations: World rotations, from the rest pose.
        positions: World positions.
        fps: Frames per second.
    """

    names: tuple[str, ...]
    parents: Int[ndarray, " joints"]
    rest: Float[ndarray, "joints 3"]
    rotations: Float[ndarray, "frames joints 3 3"]
    positions: Float[ndarray, "frames joints 3"]
    fps: float


@dataclass
class _Joint:
    name: str
    parent: int
    offset: ndarray
    channels: tuple[str, ...] = ()


def read_bvh(path: Path) -> BvhFile:
    """Read a BVH file.

    Rotation channels act in the order in which the file lists them, in degrees; position channels of any joint stand
    in for its offset.

    Raises:
        InputError: The file is missing, no BVH, ends early, has no frames, or holds NaN.
    """
    if not path.is_file():
        raise InputError(path, "expected a BVH motion, found no such file", "Give a .bvh file")
    header, *rest = re.split(
        r"^\s*MOTION\s*$", path.read_text(encoding="utf8", errors="replace"), maxsplit=1, flags=re.M
    )
    if not header.lstrip("\ufeff \t\r\n").startswith("HIERARCHY") or not rest:
        raise InputError(path, "expected a BVH file, found no HIERARCHY at its start or no MOTION", _ADVICE)
    joints, motion = _read_hierarchy(path, header), rest[0]
    values, fps = _read_frames(path, motion, sum(len(joint.channels) for joint in joints))
    if not any(channel[1] == "p" for joint in joints for channel in joint.channels):
        notice(path, "It has no positions, so the motion stays on the spot.")
    parents = np.array([joint.parent for joint in joints])
    offsets = np.stack([joint.offset for joint in joints])
    local_rotations, local_positions = _local_transforms(path, joints, values)
    still = np.broadcast_to(np.eye(3), (1, len(joints), 3, 3))
    rotations, positions = _forward(parents, local_rotations, local_positions)
    rest = _forward(parents, still, offsets[None])[1][0]
    return BvhFile(tuple(joint.name for joint in joints), parents, rest, rotations, positions, fps)


def _read_hierarchy(path: Path, header: str) -> list[_Joint]:
    joints: list[_Joint] = []
    # Of each open brace: the joint that it belongs to; None for an end site, which has an offset but moves nothing.
    open_joints: list[int | None] = []
    begun: int | None = None
    lines = header.replace("{", "\n{\n").replace("}", "\n}\n").splitlines()
    try:
        for line in lines[1:]:
            word, rest = (*line.split(maxsplit=1), "", "")[:2]
            if word in ("ROOT", "JOINT"):
                parent = open_joints[-1] if open_joints else -1
                if parent is None or (word == "ROOT") != (parent == -1):
                    raise ValueError(f"{line.strip()} at the wrong place")
                if word == "ROOT" and joints:
                    raise ValueError("a second ROOT")
                joints.append(_Joint(rest.strip(), parent, np.zeros(3)))
                begun = len(joints) - 1
            elif word == "End":
                begun = None
            elif word == "{":
                open_joints.append(begun)
            elif word == "}":
                open_joints.pop()
            elif word == "OFFSET" and open_joints[-1] is not None:
                joints[open_joints[-1]].offset = _vector(rest)
            elif word == "CHANNELS" and open_joints[-1] is not None:
                joints[open_joints[-1]].channels = _channels(rest)
            elif word and word != "OFFSET":
                raise ValueError(f"the line {line.strip()[:40]!r}")
    except (ValueError, IndexError) as error:
        reason = f" ({error})" if isinstance(error, ValueError) else ""
        raise InputError(path, f"expected BVH's hierarchy of joints{reason}", _ADVICE) from error
    if open_joints or not joints:
        raise InputError(path, "expected BVH's hierarchy of joints, found one that is not closed", _ADVICE)
    return joints


def _vector(text: str) -> ndarray:
    values = np.array([float(word) for word in text.split()])
    if values.shape != (3,) or not np.isfinite(values).all():
        raise ValueError(f"an offset of {text.strip()!r}")
    return values


def _channels(text: str) -> tuple[str, ...]:
    count, *names = text.split()
    # "Xposition" becomes "Xp", "Zrotation" "Zr".
    short = tuple(name[:2].capitalize() for name in names)
    known = [axis + kind for kind in "pr" for axis in "XYZ"]
    if int(count) != len(names) or len(set(short)) != len(short) or not set(short) <= set(known):
        raise ValueError(f"the channels {text.strip()!r}")
    return short


def _read_frames(path: Path, motion: str, channels: int) -> tuple[Float[ndarray, "frames channels"], float]:
    # Columns of fixed width can touch: "0.00000-12.34567" are two numbers.
    words = re.sub(r"(?<=[0-9.])-", " -", motion).split()
    try:
        if words[0] != "Frames:" or words[2:4] != ["Frame", "Time:"]:
            raise ValueError("no Frames: and Frame Time:")
        frames, seconds = int(words[1]), float(words[4])
        values = np.array(words[5:], dtype=np.float64)
    except (ValueError, IndexError) as error:
        raise InputError(path, f"expected frames of numbers after MOTION ({error})", _ADVICE) from error
    if not 1 / _MAX_FPS < seconds < np.inf:
        raise InputError(path, f"expected a positive Frame Time, found {seconds}", _ADVICE)
    if frames < 1:
        raise InputError(path, "expected at least one frame, found none", _ADVICE)
    if abs(len(values) - frames * channels) == channels and len(values):
        # Some programs count the rest pose in front, or not.
        found = len(values) // channels
        notice(path, f"It says {frames} frames, and has {found}: all of these are used.")
        frames = found
    if len(values) != frames * channels:
        message = f"expected {frames} frames of {channels} numbers, found {len(values)} numbers"
        ends = "; it ends early" if len(values) < frames * channels else ""
        raise InputError(path, message + ends, _ADVICE)
    values = values.reshape(frames, channels)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise InputError(path, f"expected finite numbers, found NaN or infinity in frame {bad[0]}", _ADVICE)
    fps = 1 / seconds
    # Files round the frame time, 0.0333333 for 30 frames per second.
    return values, float(round(fps)) if abs(fps - round(fps)) < 2e-4 * fps else fps


def _local_transforms(
    path: Path, joints: list[_Joint], values: Float[ndarray, "frames channels"]
) -> tuple[Float[ndarray, "frames joints 3 3"], Float[ndarray, "frames joints 3"]]:
    """Rotations and positions relative to the parents."""
    rotations = np.tile(np.eye(3), (len(values), len(joints), 1, 1))
    positions = np.tile(np.stack([joint.offset for joint in joints]), (len(values), 1, 1))
    column = 0
    for index, joint in enumerate(joints):
        columns = values[:, column : column + len(joint.channels)]
        column += len(joint.channels)
        turns = [number for number, channel in enumerate(joint.channels) if channel[1] == "r"]
        if turns:
            axes = "".join(joint.channels[number][0] for number in turns)
            rotations[:, index] = (
                Rotation.from_euler(axes, columns[:, turns], degrees=True).as_matrix().reshape(-1, 3, 3)
            )
        for number, channel in enumerate(joint.channels):
            if channel[1] == "p":
                positions[:, index, "XYZ".index(channel[0])] = columns[:, number]
    return rotations, positions


def _forward(
    parents: Int[ndarray, " joints"],
    local_rotations: Float[ndarray, "frames joints 3 3"],
    local_positions: Float[ndarray, "frames joints 3"],
) -> tuple[Float[ndarray, "frames joints 3 3"], Float[ndarray, "frames joints 3"]]:
    """World rotations and positions."""
    rotations, positions = local_rotations.copy(), local_positions.copy()
    for joint, parent in enumerate(parents):
        if parent >= 0:
            rotations[:, joint] = rotations[:, parent] @ local_rotations[:, joint]
            moved = rotations[:, parent] @ local_positions[:, joint, :, None]
            positions[:, joint] = positions[:, parent] + moved[..., 0]
    return rotations, positions
