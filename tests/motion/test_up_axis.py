"""The vertical axis of motions whose files are turned, do not name it, or show a person who lies."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from instantavatar_ns.motion.motion import load_motion
from tests.motion.bvh_files import MIXAMO, BvhStyle, write_bvh

FRAMES = 40
PELVIS = 0.9
WORLDS = {
    "y": Rotation.identity(),
    "z": Rotation.from_euler("x", 90, degrees=True),
    "-y": Rotation.from_euler("x", 180, degrees=True),
    "-z": Rotation.from_euler("x", -90, degrees=True),
}
"""From a world with y up to one with another axis up."""
FORMATS = {
    "plain": {"fps": 30.0},
    "AMASS": {"mocap_framerate": 30.0},
}


def swing():
    """Legs and arms that swing (T, 72), the root upright."""
    poses, angle = np.zeros((FRAMES, 24, 3)), 0.5 * np.sin(np.arange(FRAMES) / 4)
    poses[:, 1, 0], poses[:, 2, 0] = angle, -angle
    poses[:, 16, 2], poses[:, 17, 2] = -1.2, 1.2
    return poses


def walk(travel=1.5, ground=0.0):
    """A person who goes ahead with y up, and stands on the plane at height `ground`."""
    transl = np.linspace([0.0, PELVIS + ground, 0.0], [0.0, PELVIS + ground, travel], FRAMES)
    return Rotation.identity(FRAMES), swing(), transl


def push_ups(height=0.3):
    """A person prone with y up, head towards z, whose pelvis moves up and down; arms ahead of the chest."""
    angle = np.sin(np.arange(FRAMES) / 4)
    poses = np.zeros((FRAMES, 24, 3))
    poses[:, 16, 1], poses[:, 17, 1] = -1.4, 1.4
    transl = np.stack([0 * angle, height + 0.1 * angle, 0 * angle], axis=1)
    return Rotation.from_euler("x", (85 + 5 * angle)[:, None], degrees=True), poses, transl


def handstand():
    return Rotation.from_euler("z", np.full((FRAMES, 1), 180.0), degrees=True), swing(), walk()[2]


def get_up():
    """From lying to standing, for the last third."""
    angle = np.interp(np.arange(FRAMES), [0, 20, 27, FRAMES], [-88, -88, 0, 0])
    transl = np.stack([0 * angle, np.interp(angle, [-88, 0], [0.15, PELVIS]), 0 * angle], axis=1)
    return Rotation.from_euler("x", angle[:, None], degrees=True), swing(), transl


def save(path, motion, world, **keys):
    orient, poses, transl = motion
    poses[:, 0] = (WORLDS[world] * orient).as_rotvec()
    np.savez(path, poses=poses.reshape(len(poses), 72), trans=WORLDS[world].apply(transl), **keys)
    return path


def dance(turn=2.0):
    """A person who turns on the spot, the root at the origin, feet below it."""
    angles = np.outer(np.linspace(0.0, turn, FRAMES), [0.0, 1.0, 0.0])
    return Rotation.from_rotvec(angles), swing(), np.zeros((FRAMES, 3))


def name_of(up):
    axis = int(up.abs().argmax())
    return ("-" if up[axis] < 0 else "") + "xyz"[axis]


@pytest.mark.parametrize("keys", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("travel", [0.0, 1.5])
@pytest.mark.parametrize("world", ["y", "z", "-y"])
def test_person_who_stands(tmp_path, capsys, world, travel, keys):
    """The file's axis is that along which the person stands, and is told if its format prescribes another."""
    path = save(tmp_path / "m.npz", walk(travel), world, **keys)
    assert name_of(load_motion(path).up) == world
    said = capsys.readouterr().out
    expected = "z" if "mocap_framerate" in keys else "y"
    assert (f"Took {world} as the vertical axis" in said) == (world != expected)


@pytest.mark.parametrize("world", ["y", "z"])
def test_person_who_walks_far_from_the_ground_plane(tmp_path, world):
    """Lying, the body would rise or sink by the length of the way."""
    path = save(tmp_path / "m.npz", walk(ground=-PELVIS), world, **FORMATS["plain"])
    assert name_of(load_motion(path).up) == world


@pytest.mark.parametrize("world", ["y", "z"])
def test_person_who_turns_on_the_spot(tmp_path, world):
    """No height tells whether the body lies; but lying, it would roll."""
    assert name_of(load_motion(save(tmp_path / "m.npz", dance(), world, **FORMATS["plain"])).up) == world


@pytest.mark.parametrize(("keys", "world"), [(FORMATS["plain"], "y"), (FORMATS["AMASS"], "z")])
@pytest.mark.parametrize("height", [0.1, 0.3, 0.9])
def test_person_who_lies(tmp_path, capsys, keys, world, height):
    path = save(tmp_path / "m.npz", push_ups(height), world, **keys)
    assert name_of(load_motion(path).up) == world
    said = capsys.readouterr().out
    other = {"y": "z", "z": "-y"}[world]
    assert f"With {world} up, the body lies all the time" in said and f"give --up={other}." in said


def test_person_who_gets_up(tmp_path, capsys):
    """Standing for a third of the time is enough."""
    for name, (keys, world) in enumerate([(FORMATS["plain"], "y"), (FORMATS["AMASS"], "z")]):
        assert name_of(load_motion(save(tmp_path / f"{name}.npz", get_up(), world, **keys)).up) == world
    assert "lies" not in capsys.readouterr().out


def test_option_says_more_than_the_file(tmp_path, capsys):
    path = save(tmp_path / "m.npz", handstand(), "z", **FORMATS["plain"])
    assert name_of(load_motion(path, up="z").up) == "z"
    assert not capsys.readouterr().out
    assert name_of(load_motion(path).up) == "-z"
    assert "Took -z" in capsys.readouterr().out


def test_motion_that_lies_in_a_bvh_whose_rest_pose_stands(tmp_path, capsys):
    orient, poses, transl = push_ups()
    poses[:, 0] = orient.as_rotvec()
    for name, axes, rest_axes in (("y", "y", "y"), ("z", "z", "z")):
        style = BvhStyle(
            MIXAMO, np.zeros(72), axes=WORLDS[axes].as_matrix(), rest_axes=WORLDS[rest_axes].as_matrix(), unit=100.0
        )
        write_bvh(tmp_path / f"{name}.bvh", poses.reshape(FRAMES, 72), transl, 30.0, style)
        assert name_of(load_motion(tmp_path / f"{name}.bvh").up) == name
        assert f"With {name} up, the body lies all the time" in capsys.readouterr().out


@pytest.mark.parametrize("world", ["z", "-y"])
def test_bvh_turned_by_its_root(tmp_path, capsys, world):
    """Blender turns the root; estimates in the camera have y down."""
    orient, poses, transl = walk()
    poses[:, 0] = orient.as_rotvec()
    style = BvhStyle(MIXAMO, np.zeros(72), axes=WORLDS[world].as_matrix(), unit=100.0)
    write_bvh(tmp_path / "m.bvh", poses.reshape(FRAMES, 72), transl, 30.0, style)
    assert name_of(load_motion(tmp_path / "m.bvh").up) == world
    assert f"Took {world} as the vertical axis" in capsys.readouterr().out
