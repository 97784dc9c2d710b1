"""VRM and VRMA in the hands of others: three-vrm in a browser, and the types of the standard.

The tests and `benchmarks/everywhere.py` use it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.viewer.test_live_viewer import CHROMIUM, FLAGS

PACKAGES = ("three@0.180", "@pixiv/three-vrm@3.5", "@pixiv/three-vrm-animation@3.5")
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
const { vrm } = (await loader.loadAsync("/files/VRM")).userData;
const mixer = new THREE.AnimationMixer(vrm.scene), clips = {};
for (const name of NAMES) {
  const { vrmAnimations } = (await loader.loadAsync(`/files/${name}`)).userData;
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


@contextmanager
def three_vrm(packages: Path, folder: Path, vrm: str, motions: list[str]) -> Iterator[tuple[Any, list[str]]]:
    """Load a VRM and its motions in a page, whose `window.show(name, time)` poses it and returns where its bones are.

    Args:
        packages: Folder of `PACKAGES`.
        folder: Folder of the files.
        vrm: Name of the VRM.
        motions: Names of VRMA files.

    Yields:
        The page, once all is loaded, and the errors that it has reported.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    text = PAGE.replace("/files/VRM", f"/files/{vrm}").replace("NAMES", json.dumps(motions))

    def serve(route: Any) -> None:
        path = route.request.url.removeprefix("http://avatar.test/")
        if path == "":
            route.fulfill(body=text, content_type="text/html")
        elif path.startswith("files/"):
            route.fulfill(path=folder / Path(path).name, content_type="model/gltf-binary")
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


def extension_of(path: Path, name: str) -> dict[str, Any]:
    """Content of an extension of a whole glTF document.

    Args:
        path: A GLB, VRM or VRMA file.
        name: Of the extension.
    """
    data = path.read_bytes()
    return json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])["extensions"][name]


def type_errors(packages: Path, types: str, extension: str, content: dict[str, Any]) -> str:
    """Lines that TypeScript prints of an extension that is not as its standard says; empty where it is.

    Args:
        packages: Folder with TypeScript and the package of types.
        types: The package's name, without `@pixiv/`.
        extension: Name of the extension, by which the type is called.
        content: What the extension holds.
    """
    kind = "".join(word if word.isupper() else word.capitalize() for word in extension.replace("vrm", "VRM").split("_"))
    text = f'import type {{ {kind} }} from "@pixiv/{types}";\nexport const it: {kind} = {json.dumps(content)};\n'
    (packages / "check.ts").write_text(text)
    command = ["npx", "tsc", "--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "node", "check.ts"]
    return subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=120, check=False).stdout
