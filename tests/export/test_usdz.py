"""The USDZ, read back by OpenUSD, and judged by its rules."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from instantavatar_ns.export.rigged import skinning_matrices
from instantavatar_ns.export.usdz import usdz_bytes
from instantavatar_ns.scripts.export import Export
from instantavatar_ns.utils.errors import InputError
from tests.export.skinning import skin

pxr = pytest.importorskip("pxr", reason="OpenUSD is not installed (pip install usd-core)")


@pytest.fixture(scope="module")
def clip(rigged, walk):
    return rigged.clip(walk)


@pytest.fixture(scope="module")
def path(rigged, clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("usdz") / "avatar.usdz"
    path.write_bytes(usdz_bytes(rigged, clip))
    return path


@pytest.fixture(scope="module")
def stage(path):
    from pxr import Usd

    return Usd.Stage.Open(str(path))


def _problems(stage):
    validation = pytest.importorskip("pxr.UsdValidation", reason="this usd-core has no UsdValidation")
    rules = validation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(rules) > 20
    return [error.GetErrorAsString() for error in validation.ValidationContext(rules).Validate(stage)]


def test_usds_rules_find_nothing(stage):
    assert _problems(stage) == []


def test_usds_rules_find_something_where_something_is_wrong(stage):
    from pxr import Usd

    spoilt = Usd.Stage.CreateInMemory()
    spoilt.GetRootLayer().TransferContent(stage.Flatten())
    spoilt.ClearMetadata("metersPerUnit")
    spoilt.GetPrimAtPath("/avatar/body").RemoveAPI(pxr.UsdSkel.BindingAPI)
    assert len(_problems(spoilt)) >= 2


def test_package_is_stored_without_compression_at_multiples_of_64(path):
    with zipfile.ZipFile(path) as package:
        files = package.infolist()
        assert [file.filename for file in files] == ["avatar.usdc", "texture.png"], "the scene comes first"
        for file in files:
            assert file.compress_type == zipfile.ZIP_STORED
            package.fp.seek(file.header_offset + 26)
            name, extra = np.frombuffer(package.fp.read(4), "<u2")
            assert (file.header_offset + 30 + int(name) + int(extra)) % 64 == 0


def test_scene_is_in_metres_with_y_up_and_as_long_as_the_clip(stage, clip):
    from pxr import UsdGeom

    assert UsdGeom.GetStageMetersPerUnit(stage) == 1.0 and UsdGeom.GetStageUpAxis(stage) == "Y"
    assert stage.GetDefaultPrim().GetTypeName() == "SkelRoot"
    seconds = (stage.GetEndTimeCode() - stage.GetStartTimeCode()) / stage.GetTimeCodesPerSecond()
    assert seconds == pytest.approx(clip.times[-1])


def _skinned(stage, time):
    """Vertices as OpenUSD's own skinning poses them."""
    from pxr import Usd, UsdSkel

    cache = UsdSkel.Cache()
    root = UsdSkel.Root(stage.GetPrimAtPath("/avatar"))
    cache.Populate(root, Usd.PrimDefaultPredicate)
    mesh = stage.GetPrimAtPath("/avatar/body")
    query = cache.GetSkinningQuery(mesh)
    skeleton = cache.GetSkelQuery(UsdSkel.Skeleton(stage.GetPrimAtPath("/avatar/skeleton")))
    points = pxr.UsdGeom.Mesh(mesh).GetPointsAttr().Get()
    assert query.ComputeSkinnedPoints(skeleton.ComputeSkinningTransforms(time), points, time)
    return np.array(points)


def test_openusd_poses_the_mesh_as_the_clip_does(stage, rigged, clip):
    matrices = skinning_matrices(rigged.skeleton, clip)
    for frame in (0, 11, len(clip.times) - 1):
        np.testing.assert_allclose(_skinned(stage, frame), skin(rigged.mesh, matrices[frame])[0], atol=1e-4)


def test_without_a_motion_the_person_stands(rigged, tmp_path):
    from pxr import Usd, UsdGeom

    (tmp_path / "still.usdz").write_bytes(usdz_bytes(rigged))
    stage = Usd.Stage.Open(str(tmp_path / "still.usdz"))
    assert _problems(stage) == []
    points = np.array(UsdGeom.Mesh(stage.GetPrimAtPath("/avatar/body")).GetPointsAttr().Get())
    np.testing.assert_allclose(_skinned(stage, 0), points, atol=1e-5)
    assert points[:, 1].min() == pytest.approx(0, abs=1e-5) and 1.5 < points[:, 1].max() < 1.9


def test_texture_is_bound_and_found(stage):
    from pxr import UsdShade

    material, _ = UsdShade.MaterialBindingAPI(stage.GetPrimAtPath("/avatar/body")).ComputeBoundMaterial()
    surface, _, _ = material.ComputeSurfaceSource()
    texture, _, _ = surface.GetInput("emissiveColor").GetConnectedSource()
    file = UsdShade.Shader(texture.GetPrim()).GetInput("file").Get()
    assert file.resolvedPath.endswith("avatar.usdz[texture.png]")


def test_several_motions_and_missing_openusd_end_in_one_error(tmp_path, monkeypatch):
    options = {"load_config": tmp_path / "config.yml", "format": "usdz"}
    with pytest.raises(InputError, match="one motion for a USDZ, which holds one clip, found 2"):
        Export(**options, motion=(Path("walk"), Path("dance"))).main()
    monkeypatch.setitem(sys.modules, "pxr.UsdSkel", None)
    with pytest.raises(InputError, match=r"pip install instantavatar-ns\[usd\]"):
        Export(**options).main()
