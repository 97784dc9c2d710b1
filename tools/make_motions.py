"""Make the motions that come with the package: walk, dance and stretch.

Run `python tools/make_motions.py` (seconds). They are drawn by the code below, from curves of pelvis, feet, trunk and
arms and by inverse kinematics of the legs, for the free body; nothing was captured. Like that body they are free of any
rights (CC0). Each `instantavatar_ns/motion/library/<name>.npz` holds `poses` [T, 72], `trans` [T, 3], metres, y up, the
floor at y = 0, facing +z at first, and `fps`. walk and dance end in the pose in which they begin, a stride ahead in the
case of walk, so that `--loop` makes them go on for ever.

`--sheet PATH` also draws some frames of each. tests/motion/test_library.py measures how far feet slide and sink.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy import ndarray
from PIL import Image
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.smpl import JOINT_NAMES

ROOT = Path(__file__).parents[1]
FPS = 30
_BODY = load_body_model("free")
_VERTICES, _JOINTS = (values.double().numpy() for values in _BODY.rest(torch.zeros(10)))
_AT = {name: _JOINTS[index] for index, name in enumerate(JOINT_NAMES)}
_SIDES = {"left": 1.0, "right": -1.0}
_ANKLE_HEIGHT = _AT["left_ankle"][1] - _VERTICES[:, 1].min()
"""Of the ankle above the floor, the sole flat on it."""
_HEEL, _BALL = -0.045, 0.147
"""Where the sole touches the floor, metres ahead of the ankle: at the heel's edge and beneath the joint of the toes."""
_STANDING = (
    _ANKLE_HEIGHT
    + np.linalg.norm(_AT["left_knee"] - _AT["left_hip"])
    + (np.linalg.norm(_AT["left_ankle"] - _AT["left_knee"]))
)
"""Height of the hips above the floor on straight legs."""


@dataclass
class Foot:
    """Where a foot is over time.

    Attributes:
        place: Of the ankle [T, 3] when the foot is flat at that place, the floor at y = 0: the foot's own motion over
            the floor, without what tilting adds.
        tilt: Toes up [T], radians. Toes down, the foot stands on its ball and the toes stay flat.
        heading: Toes outwards or inwards: towards +x [T], radians.
    """

    place: ndarray
    tilt: ndarray
    heading: ndarray


@dataclass
class Figure:
    """Everything that makes up a motion.

    Attributes:
        pelvis: Position of the point midway between the hips [T, 3], the floor at y = 0.
        trunk: Rotations of the pelvis [T].
        feet: By side.
        joints: Rotations [T, 3] (axis-angle) of the joints that no leg needs.
    """

    pelvis: ndarray
    trunk: Rotation
    feet: dict[str, Foot]
    joints: dict[str, ndarray] = field(default_factory=dict)


def solve(figure: Figure) -> tuple[ndarray, ndarray]:
    """Poses [T, 72] and translations [T, 3] of a figure, its ankles where the feet want them."""
    frames = len(figure.pelvis)
    poses = np.zeros((frames, 24, 3))
    for name, rotvecs in figure.joints.items():
        poses[:, JOINT_NAMES.index(name)] = rotvecs
    poses[:, 0] = figure.trunk.as_rotvec()
    middle = (_AT["left_hip"] + _AT["right_hip"]) / 2
    transl = figure.pelvis - figure.trunk.apply(np.tile(middle, (frames, 1)))
    for side, foot in figure.feet.items():
        hip = transl + figure.trunk.apply(np.tile(_AT[f"{side}_hip"], (frames, 1)))
        heading = Rotation.from_rotvec(np.outer(foot.heading, [0.0, 1.0, 0.0]))
        turn = heading * Rotation.from_rotvec(np.outer(-foot.tilt, [1.0, 0.0, 0.0]))
        ankle = foot.place + heading.apply(_pivot(foot.tilt))
        thigh, shin = _leg(side, ankle - hip, turn, figure.trunk)
        toes = np.outer(np.minimum(foot.tilt, 0.0), [1.0, 0.0, 0.0])
        locals_ = {"hip": figure.trunk.inv() * thigh, "knee": thigh.inv() * shin, "ankle": shin.inv() * turn}
        for joint, rotation in locals_.items():
            poses[:, JOINT_NAMES.index(f"{side}_{joint}")] = rotation.as_rotvec()
        poses[:, JOINT_NAMES.index(f"{side}_foot")] = toes
    return poses.reshape(frames, 72), transl


def _pivot(tilt: ndarray) -> ndarray:
    """How the ankle [T, 3] moves when the foot tilts on its heel (toes up) or its ball (toes down)."""
    contact = np.where(tilt > 0, _HEEL, _BALL)
    arm = np.stack([np.zeros_like(tilt), np.full_like(tilt, _ANKLE_HEIGHT), -contact], axis=1)
    return Rotation.from_rotvec(np.outer(-tilt, [1.0, 0.0, 0.0])).apply(arm) - arm


def _leg(side: str, reach: ndarray, foot: Rotation, trunk: Rotation) -> tuple[Rotation, Rotation]:
    """World rotations of thigh and shin that put the ankle at `reach` [T, 3] from the hip, the knee over the foot."""
    thigh, shin = (_AT[f"{side}_{b}"] - _AT[f"{side}_{a}"] for a, b in (("hip", "knee"), ("knee", "ankle")))
    upper, lower = np.linalg.norm(thigh), np.linalg.norm(shin)
    length = np.linalg.norm(reach, axis=1)
    if length.max() > 0.999 * (upper + lower):
        raise ValueError(f"{side} leg too short in frame {length.argmax()}: {length.max():.3f} m")
    along = reach / length[:, None]
    # Ahead of the knee: halfway between the foot's direction and the pelvis's, square to the leg.
    ahead = foot.apply([0.0, 0.0, 1.0]) + trunk.apply([0.0, 0.0, 1.0])
    ahead -= (ahead * along).sum(axis=1, keepdims=True) * along
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    cosine = (upper**2 + length**2 - lower**2) / (2 * upper * length)
    bend = np.arccos(np.clip(cosine, -1.0, 1.0))[:, None]
    knee = upper * (np.cos(bend) * along + np.sin(bend) * ahead)
    return _aim(thigh, knee, ahead), _aim(shin, reach - knee, ahead)


def _aim(bone: ndarray, target: ndarray, ahead: ndarray) -> Rotation:
    """Rotations that turn a bone's rest direction to `target` [T, 3] and keep its front ahead."""

    def frame(down: ndarray, front: ndarray) -> ndarray:
        down = down / np.linalg.norm(down, axis=-1, keepdims=True)
        side = np.cross(down, front)
        side /= np.linalg.norm(side, axis=-1, keepdims=True)
        return np.stack([side, down, np.cross(side, down)], axis=-1)

    return Rotation.from_matrix(frame(target, ahead) @ frame(bone, np.array([0.0, 0.0, 1.0])).T)


def walk() -> Figure:
    """Three strides of a walk, straight ahead at a metre a second."""
    cycle, stride, strides = 32, 1.05, 3
    time = np.arange(strides * cycle + 1) / cycle
    travel = stride * time
    phase = {"left": time, "right": time + 0.5}
    feet = {side: _walking_foot(phase[side], travel, stride, side) for side in _SIDES}
    sway = np.sin(2 * np.pi * (time + 0.06))
    # The pelvis is lowest when both feet are on the floor, highest over the standing foot.
    bob = -np.cos(4 * np.pi * (time - 0.06))
    pelvis = np.stack([0.022 * sway, _STANDING - 0.034 + 0.015 * bob, travel], axis=1)
    swing = np.cos(2 * np.pi * (time - 0.02))  # 1 when the left foot is in front
    trunk = _euler(x=0.03 + 0 * time, y=-0.10 * swing, z=0.035 * np.sin(2 * np.pi * (time + 0.02)))
    joints = {
        "spine1": _vectors(x=0.02, y=0.09 * swing, z=-0.02 * sway),
        "spine2": _vectors(x=0.01, y=0.07 * swing, z=-0.01 * sway),
        "spine3": _vectors(x=0.0, y=0.05 * swing),
        "neck": _vectors(x=0.0, y=-0.06 * swing),
        "head": _vectors(x=-0.05, y=-0.05 * swing),
    }
    for side, sign in _SIDES.items():
        # Each arm goes with the other leg.
        forward = -sign * np.cos(2 * np.pi * (time - 0.05))
        joints |= _arm(side, forward=-0.02 + 0.36 * forward, out=0.17, bend=0.28 + 0.14 * forward)
    return Figure(pelvis, trunk, feet, joints)


def _walking_foot(phase: ndarray, travel: ndarray, stride: float, side: str) -> Foot:
    """A foot that strikes the floor with its heel whenever `phase` is whole, and leaves it with its toes at 0.6."""
    lead, off = 0.29, 0.62
    tilt = PchipInterpolator(
        [0.0, 0.10, 0.34, 0.46, off, 0.70, 0.86, 1.0], np.radians([17, 0, 0, -7, -48, -38, 8, 17])
    )(phase % 1)
    # Through the air: the flat foot's place, whose tilting about its ball and heel `_pivot` adds.
    through = np.clip((phase % 1 - off) / (1 - off), 0.0, 1.0)
    ahead = CubicSpline([0.0, 0.5, 1.0], [0.0, 0.53 * stride, stride], bc_type="clamped")(through)
    # Off the floor at once, for toes that hang down would drag.
    lift = PchipInterpolator([0.0, 0.12, 0.4, 0.8, 1.0], [0.0, 0.032, 0.05, 0.03, 0.0])(through)
    start = travel[0] - phase[0] * stride
    place = np.stack(
        [
            np.full_like(phase, _SIDES[side] * 0.085),
            _ANKLE_HEIGHT + lift,
            start + lead + np.floor(phase) * stride + ahead,
        ],
        axis=1,
    )
    return Foot(place, tilt, np.full_like(phase, _SIDES[side] * 0.09))


def dance() -> Figure:
    """Eight beats: two steps to either side, the arms swinging, then swaying overhead."""
    beat = 15
    time = np.arange(8 * beat + 1) / beat
    feet = {}
    # Steps as (beat of landing, place across): right foot out, left one after it, and back.
    steps = {
        "right": [(0, -0.13), (1, -0.38), (4, -0.13), (5, -0.38), (8, -0.13)],
        "left": [(0, 0.13), (2, -0.12), (3, 0.13), (6, -0.12), (7, 0.13)],
    }
    for side, path in steps.items():
        across, lift, tilt = np.full_like(time, path[0][1]), np.zeros_like(time), np.zeros_like(time)
        for (_, before), (landing, after) in pairwise(path):
            share = np.clip((time - landing + 0.8) / 0.8, 0.0, 1.0)
            across += (after - before) * _ease(share)
            lift += 0.07 * np.sin(np.pi * share) ** 2
            tilt -= 0.30 * np.sin(np.pi * share) ** 2
        place = np.stack([across, _ANKLE_HEIGHT + lift, np.zeros_like(time)], axis=1)
        feet[side] = Foot(place, tilt, np.full_like(time, _SIDES[side] * 0.22))
    middle = (feet["left"].place[:, 0] + feet["right"].place[:, 0]) / 2
    pulse = np.sin(np.pi * time) ** 2  # down on every half beat, up on the beat
    side_sway = np.sin(np.pi * time / 2)
    twist = np.sin(np.pi * time)
    pelvis = np.stack([middle - 0.05 * side_sway, _STANDING - 0.055 - 0.05 * pulse, 0.01 - 0.02 * pulse], axis=1)
    trunk = _euler(x=0.05 + 0.05 * pulse, y=0.28 * side_sway, z=0.07 * side_sway)
    # 0 while the arms swing low, 1 while they sway overhead.
    high = _ease(np.clip((time - 3.4) / 1.2, 0, 1)) * (1 - _ease(np.clip((time - 7.0) / 1.0, 0, 1)))
    joints = {
        "spine1": _vectors(x=0.03 * pulse, y=-0.08 * side_sway, z=-0.10 * side_sway),
        "spine2": _vectors(x=0.02 * pulse, y=-0.10 * twist, z=-0.08 * side_sway),
        "spine3": _vectors(x=-0.02 * pulse, y=-0.12 * twist, z=-0.05 * side_sway),
        "neck": _vectors(x=0.05 * pulse, y=0.05 * twist, z=0.05 * side_sway),
        "head": _vectors(x=0.08 * pulse, y=0.05 * twist, z=0.08 * side_sway),
    }
    for side, sign in _SIDES.items():
        low = _arm(side, forward=0.35 + 0.5 * sign * twist, out=0.45 + 0.2 * pulse, bend=1.35 + 0.3 * sign * twist)
        wave = sign * side_sway
        up = _arm(side, forward=0.15, out=2.55 + 0.30 * wave, bend=0.55 - 0.25 * wave)
        joints |= {name: (1 - high)[:, None] * low[name] + high[:, None] * up[name] for name in low}
    return Figure(pelvis, trunk, feet, joints)


def stretch() -> Figure:
    """Eight seconds: reach up, bend to the left and the right, fold down to the feet, and come up again."""
    keys = {
        "time": (0.0, 0.3, 1.4, 1.7, 2.6, 2.8, 4.0, 4.2, 5.0, 6.3, 6.7, 8.0),
        "high": (0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0),
        "side": (0, 0, 0, 0, 1, 1, -1, -1, 0, 0, 0, 0),
        "fold": (0, 0, -0.06, -0.06, 0, 0, 0, 0, 0, 1, 1, 0),
    }
    time = np.arange(round(keys["time"][-1] * FPS) + 1) / FPS
    high, side_bend, fold = (_keyed(keys["time"], keys[name], time) for name in ("high", "side", "fold"))
    feet = {
        side: Foot(
            np.tile([sign * 0.15, _ANKLE_HEIGHT, 0.0], (len(time), 1)),
            np.zeros_like(time),
            np.full_like(time, sign * 0.15),
        )
        for side, sign in _SIDES.items()
    }
    breath = 0.004 * np.sin(2 * np.pi * time / 4.2)
    down = np.clip(fold, 0.0, 1.0)
    # Hips go back as the trunk comes down: the weight stays over the feet.
    pelvis = np.stack([-0.06 * side_bend, _STANDING - 0.025 + breath - 0.02 * down, 0.03 - 0.16 * down], axis=1)
    trunk = _euler(x=1.05 * fold, z=0.06 * side_bend)
    joints = {
        "spine1": _vectors(x=0.30 * fold, z=-0.20 * side_bend),
        "spine2": _vectors(x=0.25 * fold, z=-0.20 * side_bend),
        "spine3": _vectors(x=0.20 * fold, z=-0.14 * side_bend),
        "neck": _vectors(x=0.20 * fold, z=-0.10 * side_bend),
        "head": _vectors(x=0.15 * fold, z=-0.06 * side_bend),
    }
    for side, sign in _SIDES.items():
        # Raised to the sides, and let down to the front, towards the feet.
        up = _arm(side, forward=0.05, out=2.9 - 0.10 * sign * side_bend, bend=0.15)
        hanging = _arm(side, forward=0.05 + 1.45 * down, out=0.14, bend=0.2)
        joints |= {name: high[:, None] * up[name] + (1 - high)[:, None] * hanging[name] for name in up}
        # Shoulder blades rise with the arms.
        joints[f"{side}_collar"] = _vectors(z=sign * 0.22 * high)
    return Figure(pelvis, trunk, feet, joints)


def _arm(side: str, forward: ndarray | float, out: ndarray | float, bend: ndarray | float) -> dict[str, ndarray]:
    """Shoulder and elbow of an arm: from hanging down (0) swung forward, raised to the side; elbow bent. Radians."""
    sign = _SIDES[side]
    forward, out, bend = np.broadcast_arrays(forward, out, bend)
    raised = Rotation.from_rotvec(np.outer(sign * (out - np.pi / 2), [0.0, 0.0, 1.0]))
    swung = Rotation.from_rotvec(np.outer(-forward, [1.0, 0.0, 0.0]))
    # The palm faces the body, and the elbow bends forward, when the arm hangs.
    return {f"{side}_shoulder": (swung * raised).as_rotvec(), f"{side}_elbow": _vectors(y=-sign * bend)}


def _vectors(x: ndarray | float = 0.0, y: ndarray | float = 0.0, z: ndarray | float = 0.0) -> ndarray:
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float64)


def _euler(x: ndarray | float = 0.0, y: ndarray | float = 0.0, z: ndarray | float = 0.0) -> Rotation:
    """Heading y, then lean x, then tilt z."""
    return Rotation.from_euler("YXZ", _vectors(y, x, z))


def _ease(share: ndarray) -> ndarray:
    return share**3 * (10 - 15 * share + 6 * share**2)


def _keyed(times: tuple[float, ...], values: tuple[float, ...], at: ndarray) -> ndarray:
    """Values that rest at each key and move smoothly between them."""
    before = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(times) - 2)
    starts, ends = np.take(times, before), np.take(times, before + 1)
    first, second = np.take(values, before), np.take(values, before + 1)
    return first + (second - first) * _ease(np.clip((at - starts) / (ends - starts), 0, 1))


MOTIONS: dict[str, Callable[[], Figure]] = {"walk": walk, "dance": dance, "stretch": stretch}


def body_vertices(poses: ndarray, transl: ndarray) -> ndarray:
    """Vertices [T, V, 3] of the free body."""
    tensors = [torch.from_numpy(values).float() for values in (poses[:, :3], poses[:, 3:], transl)]
    return _BODY.vertices(torch.zeros(10), *tensors).double().numpy()


def on_the_floor(poses: ndarray, transl: ndarray) -> ndarray:
    """Translations with which the body's lowest point is on the floor in every frame."""
    lowest = body_vertices(poses, transl)[..., 1].min(axis=1)
    return transl - np.outer(lowest, [0.0, 1.0, 0.0])


def contact_sheet(motions: dict[str, tuple[ndarray, ndarray]], columns: int, height: int) -> Image.Image:
    """Frames of each motion in a row, the body seen from the front left."""
    from instantavatar_ns.demo.render import camera_intrinsics, render_frame

    view = Rotation.from_euler("y", -35, degrees=True)
    faces = _BODY.faces.numpy()
    rows = []
    for poses, transl in motions.values():
        chosen = np.linspace(0, len(poses) - 1, columns + 1).round().astype(int)[:-1]
        row = []
        for vertices in body_vertices(poses[chosen], transl[chosen] * [1, 1, 0]):
            seen = view.apply(vertices - [0.0, 1.0, 0.0]) * [1, -1, -1] + [0.0, 0.0, 5.6]
            normals = _normals(seen, faces)
            image, alpha = render_frame(
                seen, faces, normals, intrinsics=camera_intrinsics(height), size=height, samples=3, albedo=_grey
            )
            picture = image * alpha[..., None] + 1 - alpha[..., None]
            row.append(picture[:, height // 8 : -height // 8])
        rows.append(np.concatenate(row, axis=1))
    return Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8))


def _normals(vertices: ndarray, faces: ndarray) -> ndarray:
    corners = vertices[faces]
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def _grey(face: ndarray, barycentric: ndarray) -> ndarray:
    return np.tile([0.55, 0.60, 0.68], (len(face), 1))


@dataclass
class Args:
    """Make the motions that come with the package."""

    output: Path = ROOT / "instantavatar_ns" / "motion" / "library"
    """Folder of the motions."""
    sheet: Path | None = None
    """Picture of some frames of each to write."""
    columns: int = 8
    """Frames of each motion in the picture."""
    height: int = 220
    """Height of a frame in the picture, pixels."""


def main(args: Args) -> None:
    """Make and write them."""
    motions = {}
    args.output.mkdir(parents=True, exist_ok=True)
    for name, make in MOTIONS.items():
        poses, transl = solve(make())
        placed = on_the_floor(poses, transl)
        print(
            f"{name}: {len(poses)} frames, {(len(poses) - 1) / FPS:.1f} s, moved by up to "
            f"{1000 * np.abs(placed - transl).max():.0f} mm onto the floor"
        )
        motions[name] = poses, placed
        np.savez_compressed(
            args.output / f"{name}.npz",
            poses=poses.astype(np.float32),
            trans=placed.astype(np.float32),
            fps=np.float64(FPS),
        )
    if args.sheet is not None:
        contact_sheet(motions, args.columns, args.height).save(args.sheet, optimize=True)


if __name__ == "__main__":
    main(tyro.cli(Args))
