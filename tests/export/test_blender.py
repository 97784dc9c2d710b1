"""The GLB and the VRM in Blender, where the variable BLENDER_PYTHON names one."""

import numpy as np
import pytest

from benchmarks.blender import VARIABLE, import_in_blender, interpreter
from instantavatar_ns.export.gltf import glb_bytes
from instantavatar_ns.export.skeleton import make_clip
from instantavatar_ns.export.vrm import VrmMeta, vrm_files
from tests.export.test_vrm import TERMS

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def blender():
    path = interpreter()
    if path is None:
        pytest.skip(f"{VARIABLE} names neither Blender nor a Python with bpy (pip install bpy)")
    return path


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


def test_blender_has_what_the_vrm_says(blender, rigged, tmp_path):
    path = tmp_path / "ann.vrm"
    path.write_bytes(vrm_files("ann", rigged, [], VrmMeta(**TERMS))["ann.vrm"])
    found = import_in_blender(blender, path)
    assert found.passes, found
