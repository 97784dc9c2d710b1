"""VRM and VRMA in the hands of others: Khronos' validator, the types of the standard, and three-vrm in a browser."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from instantavatar_ns.export.gltf import motion_glb_bytes, with_extension
from instantavatar_ns.export.humanoid import humanoid_of
from instantavatar_ns.export.rigged import joint_transforms
from instantavatar_ns.export.skeleton import Clip, Skeleton
from instantavatar_ns.export.vrm import VrmMeta, vrm_files
from tests.export.test_vrm import TERMS
from tests.export.three_vrm import PACKAGES, extension_of, three_vrm, type_errors
from tests.npm import gltf_issues, npm_packages
from tests.viewer.test_live_viewer import CHROMIUM

pytestmark = pytest.mark.nightly  # packages of npm are fetched and a browser is started: a quarter of a minute


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Folder with the npm packages that read VRM."""
    return npm_packages(tmp_path_factory.mktemp("npm"), *PACKAGES, "gltf-validator@2.0.0-dev.3.10")


@pytest.fixture(scope="module")
def files(rigged, walk, tmp_path_factory):
    """Folder of a VRM, our motion for it, and one of somebody else's skeleton."""
    folder = tmp_path_factory.mktemp("vrm")
    contents = vrm_files("ann", rigged, [walk], VrmMeta(**TERMS, name="Ann"))
    for name, content in {**contents, "other.vrma": _others_motion()}.items():
        (folder / name).write_bytes(content)
    return folder


def _others_motion() -> bytes:
    """A VRMA of a stick figure of twice the size, whose bones rest turned; it raises its left arm."""
    names = ["hips", "spine", "head", "leftUpperArm", "leftLowerArm", "leftHand"]
    places = np.array([[0, 2, 0], [0, 2.4, 0], [0, 3.2, 0], [0.3, 3, 0], [0.9, 3, 0], [1.4, 3, 0]], float)
    parents = np.array([-1, 0, 1, 1, 3, 4])
    world = Rotation.from_rotvec(np.random.default_rng(2).standard_normal((6, 3)))
    above = Rotation.concatenate([Rotation.identity(), world[parents[1:]]])
    offsets = above.inv().apply(places - np.concatenate([np.zeros((1, 3)), places[parents[1:]]]))
    rest = (above.inv() * world).as_quat()
    raised = rest.copy()
    upright = Rotation.from_rotvec([0.0, 0.0, np.pi / 2])
    raised[3] = (above[3].inv() * upright * world[3]).as_quat()
    skeleton = Skeleton(names, parents, offsets, np.tile(np.eye(4), (6, 1, 1)))
    root = np.tile(places[0], (2, 1)).astype(np.float32)
    clip = Clip("raise", np.array([0, 1], np.float32), np.stack([rest, raised]).astype(np.float32), root)
    still = Clip("rest", np.zeros(1, np.float32), rest[None].astype(np.float32), root[:1])
    bones = {"humanBones": {name: {"node": 1 + joint} for joint, name in enumerate(names)}}
    glb = motion_glb_bytes(skeleton, still, clip)
    return with_extension(glb, "VRMC_vrm_animation", {"specVersion": "1.0", "humanoid": bones})


@pytest.mark.parametrize("name", ["ann.vrm", "ann_walk.vrma"])
def test_validator_finds_nothing(packages, files, name):
    issues = gltf_issues(packages, files / name)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


@pytest.mark.parametrize(
    ("name", "extension", "types"),
    [
        ("ann.vrm", "VRMC_vrm", "types-vrmc-vrm-1.0"),
        ("ann_walk.vrma", "VRMC_vrm_animation", "types-vrmc-vrm-animation-1.0"),
    ],
)
def test_extension_is_of_the_standards_types(files, tmp_path, name, extension, types):
    """TypeScript compares the object with the types, which know all properties, and which of them must be there."""
    npm_packages(tmp_path, "typescript@5", f"@pixiv/{types}")
    content = extension_of(files / name, extension)
    assert type_errors(tmp_path, types, extension, content) == ""
    assert "TS2" in type_errors(tmp_path, types, extension, {**content, "specVersion": "0.0"})


@pytest.fixture(scope="module")
def page(packages, files) -> Iterator:
    """A page in which three-vrm has loaded the VRM, and the errors that it reported."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    with three_vrm(packages, files, "ann.vrm", ["ann_walk.vrma", "other.vrma"]) as page:
        yield page


def test_three_vrm_plays_our_motion_and_others(page, rigged, walk, tmp_path):
    page, errors = page
    info = page.evaluate("window.info")
    assert errors == [] and info["version"] == "1" and info["author"] == list(TERMS["author"]) and info["first"] == 1
    assert info["eyes"][1] > 0.05 and info["durations"] == pytest.approx([walk.duration, 1.0])

    humanoid, clip = humanoid_of(rigged), rigged.clip(walk)
    joints = joint_transforms(rigged.skeleton, clip)[..., :3, 3]
    pictures = []
    for frame in (0, 12, 25):
        places = page.evaluate("time => window.show('ann_walk.vrma', time)", frame / walk.fps)
        for bone, place in places.items():
            if bone in humanoid.bones:
                np.testing.assert_allclose(place, joints[frame, humanoid.bones[bone]], atol=2e-3)
        picture = page.screenshot(path=tmp_path / f"walk_{frame}.png", timeout=120_000)
        pictures.append(np.array(Image.open(io.BytesIO(picture)).convert("L")).astype(float))
    for picture in pictures:
        assert 0.03 < (picture < 240).mean() < 0.4, "a whole person, and the white around"
    assert (np.abs(pictures[0] - pictures[1]) > 30).mean() > 0.004

    rest = page.evaluate("window.show(null, 0)")
    raised = page.evaluate("window.show('other.vrma', 0.5)")
    shoulder, hand = (np.array(raised[bone]) for bone in ("leftUpperArm", "leftHand"))
    length = np.linalg.norm(np.array(rest["leftHand"]) - rest["leftUpperArm"])
    np.testing.assert_allclose(hand - shoulder, [np.sqrt(0.5) * length, np.sqrt(0.5) * length, 0], atol=1e-3)
    np.testing.assert_allclose(raised["rightHand"], rest["rightHand"], atol=1e-3)
    np.testing.assert_allclose(raised["hips"], rest["hips"], atol=1e-3)  # scaled to our size
