"""`instant-avatar export` of a trained run in formats for VR and phones."""

import pytest

from instantavatar_ns.export.vrm import VrmMeta
from instantavatar_ns.scripts.export import Export
from tests.export.glb import Glb
from tests.export.test_vrm import TERMS

SMALL = {"voxel_size": 0.03, "max_faces": 2000, "texture_size": 64}


def test_run_becomes_a_vrm_and_a_motion(trained_run, demo_subject, tmp_path):
    path = Export(
        load_config=trained_run / "config.yml",
        format="vrm",
        output=tmp_path / "new" / "ann.vrm",
        motion=(demo_subject / "novel" / "poses.npz",),
        vrm=VrmMeta(**TERMS),
        **SMALL,
    ).main()
    assert sorted(file.name for file in path.parent.iterdir()) == ["ann.vrm", "ann_poses.vrma"]
    vrm = Glb(path)
    assert vrm.json["extensions"]["VRMC_vrm"]["meta"]["name"] == "person", "the experiment's name"
    assert vrm.posed()[:, 1].min() == pytest.approx(0, abs=1e-4) and vrm.texture.shape == (64, 64, 3)


def test_run_becomes_a_usdz(trained_run, demo_subject):
    usd = pytest.importorskip("pxr.Usd", reason="OpenUSD is not installed (pip install usd-core)")
    motion = demo_subject / "novel" / "poses.npz"
    path = Export(load_config=trained_run / "config.yml", format="usdz", motion=(motion,), **SMALL).main()
    assert path == trained_run / "export" / "avatar.usdz"
    stage = usd.Stage.Open(str(path))
    assert stage.GetEndTimeCode() == 3 and stage.GetPrimAtPath("/avatar/skeleton/poses").IsValid()
