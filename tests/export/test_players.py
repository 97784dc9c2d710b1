"""The GLB in the hands of others: Khronos' validator, and three.js in a browser, which plays a clip."""

import io

import numpy as np
import pytest
from PIL import Image

from instantavatar_ns.export.compression import with_packed_buffers, with_webp_texture
from instantavatar_ns.export.mesh_files import png_bytes
from instantavatar_ns.export.normal_map import with_normal_map
from instantavatar_ns.scripts.export import Export
from tests.npm import gltf_issues, npm_packages
from tests.viewer.test_live_viewer import CHROMIUM, FLAGS

PAGE = """<!doctype html><style>body { margin: 0 }</style><script type="importmap">
{"imports": {"three": "/three/build/three.module.js", "three/addons/": "/three/examples/jsm/"}}</script>
<script type="module">
import * as THREE from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { MeshoptDecoder } from "three/addons/libs/meshopt_decoder.module.js";
const gltf = await new GLTFLoader().setMeshoptDecoder(MeshoptDecoder).loadAsync("/avatar.glb");
const scene = new THREE.Scene(), camera = new THREE.PerspectiveCamera(35, 1, 0.1, 20);
scene.background = new THREE.Color("white");
scene.add(gltf.scene, new THREE.HemisphereLight("white", "grey", 2));
camera.position.set(0, 1, 4);
camera.lookAt(0, 0.9, 0);
const renderer = new THREE.WebGLRenderer({ antialias: true, preserveDrawingBuffer: true });
renderer.setSize(400, 400);
document.body.append(renderer.domElement);
const mixer = new THREE.AnimationMixer(gltf.scene);
window.show = (time) => {
  if (time !== null) { mixer.clipAction(gltf.animations[0]).play(); mixer.setTime(time); }
  renderer.render(scene, camera);
};
let skinned = 0;
gltf.scene.traverse((object) => { if (object.isSkinnedMesh) skinned += object.skeleton.bones.length; });
window.info = { bones: skinned, clips: gltf.animations.map((clip) => [clip.name, clip.duration]) };
</script>"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Folder with the npm packages three and gltf-validator."""
    return npm_packages(tmp_path_factory.mktemp("npm"), "three@0.180", "gltf-validator@2.0.0-dev.3.10")


@pytest.fixture(scope="module")
def plain_glb(trained_run, demo_subject, tmp_path_factory):
    return Export(
        load_config=trained_run / "config.yml",
        output=tmp_path_factory.mktemp("glb") / "avatar.glb",
        motion=(demo_subject / "novel" / "poses.npz",),
        voxel_size=0.02,
        max_faces=4000,
        texture_size=256,
    ).main()


@pytest.fixture(scope="module", params=["plain", "packed"])
def glb(request, plain_glb):
    """The file as it is, and lit, with everything that makes it smaller."""
    if request.param == "plain":
        return plain_glb
    pytest.importorskip("meshoptimizer", reason="the extra `meshopt` is not installed")
    packed = plain_glb.with_name("packed.glb")
    flat = png_bytes(np.full((16, 16, 3), (128, 128, 255), np.uint8))
    lit = with_normal_map(plain_glb.read_bytes(), flat)
    packed.write_bytes(with_packed_buffers(with_webp_texture(lit)))
    return packed


def test_validator_finds_nothing(packages, glb):
    issues = gltf_issues(packages, glb)
    warnings = {message["code"] for message in issues["messages"] if message["severity"] == 1}
    assert issues["numErrors"] == 0, issues["messages"]
    # Of a normal map: the reader makes the tangents.
    assert warnings <= {"MESH_PRIMITIVE_GENERATED_TANGENT_SPACE"}, issues["messages"]


def test_three_plays_the_clip(packages, glb, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")

    def serve(route):
        path = route.request.url.removeprefix("http://avatar.test/")
        if path == "":
            route.fulfill(body=PAGE, content_type="text/html")
        elif path.startswith("three/"):
            route.fulfill(path=packages / "node_modules" / path, content_type="text/javascript")
        elif path == "avatar.glb":
            route.fulfill(path=glb, content_type="model/gltf-binary")
        else:
            route.fulfill(status=204)

    errors = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 400, "height": 400})
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(f"uncaught: {error}"))
        page.route("http://avatar.test/**", serve)
        page.goto("http://avatar.test/")
        page.wait_for_function("window.info !== undefined", timeout=120_000)
        info = page.evaluate("window.info")
        duration = info["clips"][0][1]
        pictures = []
        for time in (None, 0.0, 0.6 * duration):
            page.evaluate("time => window.show(time)", time)
            picture = page.screenshot(path=tmp_path / f"three_{len(pictures)}.png", timeout=120_000)
            pictures.append(np.array(Image.open(io.BytesIO(picture)).convert("L")).astype(float))
        browser.close()
    assert errors == []
    assert info["bones"] == 24 and info["clips"][0][0] == "poses" and duration > 0
    for picture in pictures:
        person = picture < 240
        assert 0.03 < person.mean() < 0.4  # a whole person, and the white around
        rows = np.flatnonzero(person.any(axis=1))
        assert rows[-1] - rows[0] > 150
    for first, second in ((0, 1), (1, 2)):
        assert (np.abs(pictures[first] - pictures[second]) > 30).mean() > 0.004
