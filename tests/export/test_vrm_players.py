"""VRM and VRMA in the hands of others: Khronos' validator, the types of the standard, and three-vrm in a browser."""

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

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
from tests.npm import gltf_issues, npm_packages
from tests.viewer.test_live_viewer import CHROMIUM, FLAGS

pytestmark = pytest.mark.nightly  # packages of npm are fetched and a browser is started: a quarter of a minute
PAGE = """<!doctype html><style>body { margin: 0 }</style><script type="importmap">{"imports": {
"three": "/three/build/three.module.js", "three/addons/": "/three/examples/jsm/",
"@pixiv/three-vrm": "/@pixiv/three-vrm/lib/three-vrm.module.js",
"@pixiv/three-vrm-animation": "/@pixiv/three-vrm-animation/lib/three-vrm-animation.module.js"}}</script>
<script type="module">
import * as THREE from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { VRMLoaderPlugin } from "@pixiv/three-vrm";
import { VRMAnimationLoaderPlugin, createVRMAnimationClip } from "@pixiv/three-vrm-animation";
const loader = new GLTFLoader();
loader.register((parser) => new VRMLoaderPlugin(parser));
loader.register((parser) => new VRMAnimationLoaderPlugin(parser));
const { vrm } = (await loader.loadAsync("/files/ann.vrm")).userData;
const mixer = new THREE.AnimationMixer(vrm.scene), clips = {};
for (const name of ["ann_walk", "other"]) {
  const { vrmAnimations } = (await loader.loadAsync(`/files/${name}.vrma`)).userData;
  clips[name] = createVRMAnimationClip(vrmAnimations[0], vrm);
}
const scene = new THREE.Scene(), camera = new THREE.PerspectiveCamera(35, 1, 0.1, 20);
scene.background = new THREE.Color("white");
scene.add(vrm.scene);
camera.position.set(0, 1, 4);
camera.lookAt(0, 0.9, 0);
const renderer = new THREE.WebGLRenderer({ preserveDrawingBuffer: true });
renderer.setSize(300, 300);
document.body.append(renderer.domElement);
window.show = (name, time) => {
  mixer.stopAllAction();
  if (name !== null) { mixer.clipAction(clips[name]).play(); mixer.setTime(time); }
  vrm.update(0);
  vrm.scene.updateMatrixWorld(true);
  renderer.render(scene, camera);
  return Object.fromEntries(Object.keys(vrm.humanoid.humanBones).map((bone) =>
    [bone, vrm.humanoid.getRawBoneNode(bone).getWorldPosition(new THREE.Vector3()).toArray()]));
};
window.info = { author: vrm.meta.authors, version: vrm.meta.metaVersion, first: vrm.firstPerson.meshAnnotations.length,
  eyes: vrm.lookAt.offsetFromHeadBone.toArray(), durations: Object.values(clips).map((clip) => clip.duration) };
</script>"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Folder with the npm packages that read VRM."""
    wanted = ("three@0.180", "@pixiv/three-vrm@3.5", "@pixiv/three-vrm-animation@3.5", "gltf-validator@2.0.0-dev.3.10")
    return npm_packages(tmp_path_factory.mktemp("npm"), *wanted)


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
    data = (files / name).read_bytes()
    content = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])["extensions"][extension]

    def errors(content):
        kind = extension.replace("_", "").replace("vrm", "VRM").replace("animation", "Animation")
        text = f'import type {{ {kind} }} from "@pixiv/{types}";\nexport const it: {kind} = {json.dumps(content)};\n'
        (tmp_path / "check.ts").write_text(text)
        command = ["npx", "tsc", "--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "node", "check.ts"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False).stdout

    assert errors(content) == ""
    assert "TS2" in errors({**content, "specVersion": "0.0"})


@pytest.fixture(scope="module")
def page(packages, files) -> Iterator:
    """A page in which three-vrm has loaded the VRM, and the errors that it reported."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")

    def serve(route):
        path = route.request.url.removeprefix("http://avatar.test/")
        if path == "":
            route.fulfill(body=PAGE, content_type="text/html")
        elif path.startswith("files/"):
            route.fulfill(path=files / Path(path).name, content_type="model/gltf-binary")
        elif (packages / "node_modules" / path).is_file():
            route.fulfill(path=packages / "node_modules" / path, content_type="text/javascript")
        else:
            route.fulfill(status=204)

    errors: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 300, "height": 300})
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(f"uncaught: {error}"))
        page.route("http://avatar.test/**", serve)
        page.goto("http://avatar.test/")
        page.wait_for_function("window.info !== undefined", timeout=120_000)
        yield page, errors
        browser.close()


def test_three_vrm_plays_our_motion_and_others(page, rigged, walk, tmp_path):
    page, errors = page
    info = page.evaluate("window.info")
    assert errors == [] and info["version"] == "1" and info["author"] == list(TERMS["author"]) and info["first"] == 1
    assert info["eyes"][1] > 0.05 and info["durations"] == pytest.approx([walk.duration, 1.0])

    humanoid, clip = humanoid_of(rigged), rigged.clip(walk)
    joints = joint_transforms(rigged.skeleton, clip)[..., :3, 3]
    pictures = []
    for frame in (0, 12, 25):
        places = page.evaluate("time => window.show('ann_walk', time)", frame / walk.fps)
        for bone, place in places.items():
            if bone in humanoid.bones:
                np.testing.assert_allclose(place, joints[frame, humanoid.bones[bone]], atol=2e-3)
        picture = page.screenshot(path=tmp_path / f"walk_{frame}.png", timeout=120_000)
        pictures.append(np.array(Image.open(io.BytesIO(picture)).convert("L")).astype(float))
    for picture in pictures:
        assert 0.03 < (picture < 240).mean() < 0.4, "a whole person, and the white around"
    assert (np.abs(pictures[0] - pictures[1]) > 30).mean() > 0.004

    rest = page.evaluate("window.show(null, 0)")
    raised = page.evaluate("window.show('other', 0.5)")
    shoulder, hand = (np.array(raised[bone]) for bone in ("leftUpperArm", "leftHand"))
    length = np.linalg.norm(np.array(rest["leftHand"]) - rest["leftUpperArm"])
    np.testing.assert_allclose(hand - shoulder, [np.sqrt(0.5) * length, np.sqrt(0.5) * length, 0], atol=1e-3)
    np.testing.assert_allclose(raised["rightHand"], rest["rightHand"], atol=1e-3)
    np.testing.assert_allclose(raised["hips"], rest["hips"], atol=1e-3)  # scaled to our size
