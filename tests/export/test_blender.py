"""The GLB and the VRM in Blender, where the variable BLENDER_PYTHON names one."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.blender import VARIABLE, import_in_blender, interpreter
from instantavatar_ns.export.gltf import glb_bytes
from instantavatar_ns.export.skeleton import make_clip
from instantavatar_ns.export.vrm import VrmMeta, vrm_files
from tests.export.glb import Glb
from tests.export.test_vrm import TERMS

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def blender():
    path = interpreter()
    if path is None:
        pytest.skip(f"{VARIABLE} names neither Blender nor a Python with bpy (pip install bpy)")
    return path


READ_FBX = """
import json, bpy, numpy as np
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.fbx(filepath="avatar.fbx")
(body,) = (thing for thing in bpy.data.objects if thing.type == "MESH")
armature = body.find_armature()
armature.data.pose_position = "REST"
bpy.context.view_layer.update()
shown = body.evaluated_get(bpy.context.evaluated_depsgraph_get())
heights = [(shown.matrix_world @ vertex.co).z for vertex in shown.to_mesh().vertices]
clips = {action.name.split("|")[-1]: np.ptp(action.frame_range) / 24 for action in bpy.data.actions}
print("read", json.dumps([sorted(bone.name for bone in armature.data.bones), clips, max(heights) - min(heights)]))
"""


@pytest.fixture(scope="module")
def glb(rigged, walk, tmp_path_factory):
    """A GLB from a recording whose y points down, as those of OpenCV's cameras do."""
    y_down = np.diag([1.0, -1.0, -1.0, 1.0])
    y_down[:3, 3] = [0.3, 1.2, -4.0]
    clips = [
        make_clip(name, motion, motion.fps, rigged.skeleton)
        for name, motion in (("walk", walk), ("b", walk.rows(slice(7))))
    ]
    path = tmp_path_factory.mktemp("blender") / "avatar.glb"
    content = glb_bytes(
        rigged.mesh,
        texture_png=rigged.texture_png,
        skeleton=rigged.skeleton,
        rest=rigged.rest,
        clips=clips,
        dataset_to_upright=y_down,
    )
    path.write_bytes(content)
    return path


def test_blender_has_what_the_glb_says(blender, glb):
    found = import_in_blender(blender, glb)
    assert found.passes, found
    assert 1.5 < found.rest_height < 1.9


def test_fbx_by_the_page_has_bones_clips_and_height(blender, glb, repo_root, tmp_path):
    page = (repo_root / "docs" / "formats.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^cat > glb_to_fbx.py <<'PYTHON'\n(.*?)^PYTHON$", page, re.M | re.S)
    shutil.copyfile(glb, tmp_path / "avatar.glb")
    told = run_script(blender, script, tmp_path) + run_script(blender, READ_FBX, tmp_path)
    bones, clips, height = json.loads(re.findall(r"^read (.*)$", told, re.M)[-1])
    file = Glb(glb)
    assert bones == sorted(file.json["nodes"][joint]["name"] for joint in file.json["skins"][0]["joints"])
    assert clips == {name: pytest.approx(float(file.clip_times(name)[-1]), abs=1 / 24) for name in ("walk", "b")}
    assert height == pytest.approx(np.ptp(file.positions[:, 1]), abs=1e-3)


def run_script(blender, script, folder):
    """What a script prints in Blender's Python, in a folder."""
    (folder / "script.py").write_text(script)
    options = ["--background", "--factory-startup", "--python"] if "blender" in Path(blender).name.lower() else []
    without_ours = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [blender, *options, "script.py"]
    return subprocess.run(command, cwd=folder, env=without_ours, capture_output=True, text=True, check=True).stdout


def test_blender_has_what_the_vrm_says(blender, rigged, tmp_path):
    path = tmp_path / "ann.vrm"
    path.write_bytes(vrm_files("ann", rigged, [], VrmMeta(**TERMS))["ann.vrm"])
    found = import_in_blender(blender, path)
    assert found.passes, found
