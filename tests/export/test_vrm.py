"""VRM and VRMA files, read back by the glTF specification, and the terms that their author has to choose."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from instantavatar_ns.export.humanoid import REQUIRED_BONES, humanoid_of
from instantavatar_ns.export.rigged import joint_transforms
from instantavatar_ns.export.vrm import LICENSE_URL, VrmMeta, eyes, vrm_files
from instantavatar_ns.scripts.export import Export
from instantavatar_ns.utils.errors import InputError
from tests.export.glb import Glb

TERMS = {
    "author": ("Ann", "Bob"),
    "avatar_permission": "onlyAuthor",
    "commercial_usage": "personalNonProfit",
    "credit_notation": "required",
    "modification": "prohibited",
}


@pytest.fixture(scope="module")
def files(rigged, walk, tmp_path_factory):
    """Folder of a VRM and a VRMA."""
    folder = tmp_path_factory.mktemp("vrm")
    for name, content in vrm_files("ann", rigged, [walk], VrmMeta(**TERMS, name="Ann")).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def vrm(files):
    return Glb(files / "ann.vrm")


def _document(path):
    data = path.read_bytes()
    return json.loads(data[20 : 20 + struct.unpack_from("<I", data, 12)[0]])


def test_bones_lead_to_the_joints_of_the_skin(vrm, rigged):
    extension = vrm.json["extensions"]["VRMC_vrm"]
    assert extension["specVersion"] == "1.0" and "VRMC_vrm" in vrm.json["extensionsUsed"]
    nodes = {bone: entry["node"] for bone, entry in extension["humanoid"]["humanBones"].items()}
    assert set(REQUIRED_BONES) <= set(nodes) and len(set(nodes.values())) == len(nodes)
    assert set(nodes.values()) <= set(vrm.json["skins"][0]["joints"])
    assert vrm.json["nodes"][nodes["leftHand"]]["name"] == "left_wrist"
    (annotation,) = extension["firstPerson"]["meshAnnotations"]
    assert "mesh" in vrm.json["nodes"][annotation["node"]] and annotation["type"] == "auto"


def test_rest_pose_is_a_t_pose_without_turned_nodes(vrm):
    np.testing.assert_allclose(vrm.local_transforms()[:, :3, :3], np.tile(np.eye(3), (26, 1, 1)), atol=1e-6)
    posed = vrm.posed()
    np.testing.assert_allclose(posed, vrm.positions, atol=1e-5)
    extent = np.ptp(posed, axis=0)
    assert posed[:, 1].min() == pytest.approx(0, abs=1e-5)
    assert extent[0] > 0.95 * extent[1] > 1.5 and extent[2] < 0.4
    arms = posed[np.abs(posed[:, 0]) > 0.35]
    assert np.ptp(arms[:, 1]) < 0.2, "level arms"
    assert "animations" not in vrm.json or not vrm.json["animations"]


def test_eyes_are_in_front_of_the_head(rigged):
    humanoid = humanoid_of(rigged)
    x, y, z = eyes(humanoid)
    head = joint_transforms(humanoid.avatar.skeleton, humanoid.rest)[0, humanoid.bones["head"], :3, 3]
    height = humanoid.avatar.mesh.positions[:, 1].max()
    assert x == 0 and 0.92 * height < head[1] + y < 0.95 * height and 0.05 < z < 0.15


def test_motion_file_moves_the_joints_as_the_clip_does(files, rigged, walk):
    document = _document(files / "ann_walk.vrma")
    extension = document["extensions"]["VRMC_vrm_animation"]
    assert extension["specVersion"] == "1.0"
    hips = extension["humanoid"]["humanBones"]["hips"]["node"]
    (animation,) = document["animations"]
    targets = [(channel["target"]["node"], channel["target"]["path"]) for channel in animation["channels"]]
    assert [node for node, path in targets if path == "translation"] == [hips], "only the hips move"
    assert not document.get("meshes") and not document.get("skins")


def test_terms_are_those_that_were_chosen():
    content = VrmMeta(**TERMS, allow_redistribution=True, name="Ann", contact="ann@example.org").content()
    assert content["authors"] == ["Ann", "Bob"] and content["licenseUrl"] == LICENSE_URL
    assert content["avatarPermission"] == "onlyAuthor" and content["allowRedistribution"] is True
    assert content["contactInformation"] == "ann@example.org" and "copyrightInformation" not in content
    denied = [key for key, value in content.items() if key.startswith("allow") and value]
    assert denied == ["allowRedistribution"], "nothing is allowed that was not asked for"


@pytest.mark.parametrize("missing", TERMS)
def test_missing_terms_are_listed(missing):
    terms = {name: value for name, value in TERMS.items() if name != missing}
    with pytest.raises(InputError, match=f"--vrm.{missing.replace('_', '-')}") as error:
        VrmMeta(**terms).check()
    assert str(error.value).count("--vrm.") == 1, "what is given is not asked for again"


def test_all_missing_terms_are_listed_at_once(tmp_path):
    with pytest.raises(InputError, match=r"--vrm.author NAME.*onlySeparatelyLicensedPerson.*corporation.*prohibited"):
        Export(load_config=tmp_path / "config.yml", format="vrm").main()
    with pytest.raises(InputError, match="--vrm: expected with --format vrm only"):
        Export(load_config=tmp_path / "config.yml", vrm=VrmMeta(**TERMS)).main()


def test_motion_files_are_not_replaced(tmp_path):
    (tmp_path / "ann_walk.vrma").write_text("mine")
    with pytest.raises(InputError, match=r"ann_walk.vrma: expected no such file yet"):
        Export(
            load_config=tmp_path / "config.yml",
            format="vrm",
            output=tmp_path / "ann.vrm",
            motion=(Path("walk"),),
            vrm=VrmMeta(**TERMS),
        ).main()
