"""Packed GLB files say the same in fewer bytes."""

import sys

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from instantavatar_ns.body.canonical import canonical_vertices
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.export.bone_names import with_mixamo_names
from instantavatar_ns.export.compression import with_packed_buffers, with_webp_texture
from instantavatar_ns.export.glb_container import read_glb, write_glb
from instantavatar_ns.export.gltf import SkinnedMesh, glb_bytes
from instantavatar_ns.export.mesh_files import png_bytes
from instantavatar_ns.export.skeleton import make_clip, make_skeleton, strongest_bones
from instantavatar_ns.utils.errors import InputError
from tests.avatars import BETAS
from tests.export.glb import Glb

FRAMES = 6


@pytest.fixture(scope="module")
def content(small_avatar):
    """The free body with a smooth texture and a clip of large turns."""
    body = small_avatar.body
    vertices = canonical_vertices(body, BETAS).numpy()
    mesh = SkinnedMesh(
        vertices,
        vertices / np.linalg.norm(vertices, axis=1, keepdims=True),
        np.random.default_rng(0).random((len(vertices), 2), np.float32),
        *strongest_bones(body.skinning_weights.numpy()),
        body.faces.numpy(),
    )
    skeleton = make_skeleton(body, BETAS)
    generator = torch.Generator().manual_seed(1)
    orient, body_pose = torch.rand(FRAMES, 3, generator=generator), torch.randn(FRAMES, 69, generator=generator) / 3
    poses = PoseSequence(BETAS, orient, body_pose, torch.rand(FRAMES, 3, generator=generator))
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    texture = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(90)), axis=-1)
    clip = make_clip("turn", poses, 10.0, skeleton)
    return glb_bytes(
        mesh,
        texture_png=png_bytes(texture),
        skeleton=skeleton,
        rest=clip,
        clips=[clip],
        dataset_to_upright=np.eye(4),
    )


def _read(content, folder):
    (folder / "file.glb").write_bytes(content)
    return Glb(folder / "file.glb")


@pytest.fixture(scope="module")
def plain(content, tmp_path_factory):
    return _read(content, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def packed_content(content):
    pytest.importorskip("meshoptimizer", reason="the extra `meshopt` is not installed")
    return with_packed_buffers(content)


@pytest.fixture(scope="module")
def packed(packed_content, tmp_path_factory):
    return _read(packed_content, tmp_path_factory.mktemp("packed"))


def test_packed_file_is_small(content, packed_content):
    assert len(packed_content) < 0.4 * len(content)


@pytest.mark.parametrize("frame", [None, 0, FRAMES - 1])
def test_packed_mesh_moves_alike(plain, packed, frame):
    """To 0.1 mm: vertices are sorted anew, so each is looked for by its texture coordinates."""
    clip = () if frame is None else ("turn", float(plain.clip_times("turn")[frame]))
    distance, same = KDTree(plain.uv).query(packed.uv)
    assert distance.max() < 2e-5 and len(set(same)) == len(plain.uv) == len(packed.uv)
    assert np.abs(packed.posed(*clip) - plain.posed(*clip)[same]).max() < 2e-4
    assert _sorted(same[packed.faces]) == _sorted(plain.faces)


def _sorted(faces):
    """Triangles, each from its lowest vertex on, in order: winding stays."""
    turned = [tuple(np.roll(face, -int(np.argmin(face)))) for face in faces]
    return sorted(turned)


def test_packed_weights_sum_to_one(packed):
    number = packed.json["meshes"][0]["primitives"][0]["attributes"]["WEIGHTS_0"]
    assert packed.json["accessors"][number]["componentType"] == 5123
    assert (np.round(packed.weights * 65535).sum(axis=1) == 65535).all()
    assert (packed.joints[packed.weights == 0] == 0).all()


def test_packed_file_names_what_readers_need(packed_content):
    document, binary = read_glb(packed_content)
    assert set(document["extensionsRequired"]) == {"EXT_meshopt_compression", "KHR_mesh_quantization"}
    assert "KHR_materials_unlit" in document["extensionsUsed"]
    real, fallback = document["buffers"]
    assert real["byteLength"] <= len(binary) < fallback["byteLength"]
    assert fallback["extensions"]["EXT_meshopt_compression"]["fallback"] is True


def test_webp_texture_looks_alike(content, plain, tmp_path):
    smaller = with_webp_texture(content)
    other = _read(smaller, tmp_path)
    assert np.abs(other.texture.astype(int) - plain.texture).mean() < 4
    assert other.json["images"][0]["mimeType"] == "image/webp"
    (texture,) = other.json["textures"]
    assert texture["extensions"]["EXT_texture_webp"]["source"] == 0 and "source" not in texture
    np.testing.assert_array_equal(other.positions, plain.positions)


def test_missing_package_is_named(content, monkeypatch):
    monkeypatch.setitem(sys.modules, "meshoptimizer", None)
    with pytest.raises(InputError, match=r"pip install instantavatar-ns\[meshopt\]"):
        with_packed_buffers(content)


def test_mixamo_names_replace_all_of_smpl(content, plain, tmp_path):
    renamed = _read(with_mixamo_names(content), tmp_path)
    pairs = [[glb.json["nodes"][joint]["name"] for joint in glb.json["skins"][0]["joints"]] for glb in (plain, renamed)]
    names = dict(zip(*pairs, strict=True))
    assert len(set(names.values())) == 24 and not set(names) & set(names.values())
    assert (names["left_hip"], names["right_elbow"], names["spine3"]) == ("LeftUpLeg", "RightForeArm", "Spine2")
    np.testing.assert_array_equal(renamed.posed("turn", 0.3), plain.posed("turn", 0.3))


def test_container_keeps_document_and_buffer():
    document = {"asset": {"version": "2.0"}, "name": "ü"}
    assert read_glb(write_glb(document, b"12345")) == (document, b"12345\0\0\0")
    with pytest.raises(ValueError, match="GLB file of version 2"):
        read_glb(b"{}")
