"""`instant-avatar export` on a trained run, and the files it writes."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import trimesh
from nerfstudio.utils.eval_utils import eval_setup

from instantavatar_ns.export.avatar import AvatarMesh
from instantavatar_ns.export.motions import closed, place
from instantavatar_ns.export.surface import Surface
from instantavatar_ns.motion.editing import MotionOptions, Root
from instantavatar_ns.motion.motion import load_motion
from instantavatar_ns.scripts.export import Export
from instantavatar_ns.utils.errors import InputError
from tests.export.glb import Glb

AS_GIVEN = MotionOptions(root="as-recorded", place="dataset")
SMALL = {"voxel_size": 0.02, "max_faces": 4000, "texture_size": 256}


@pytest.fixture(scope="module")
def dance(demo_subject):
    return demo_subject / "novel" / "poses.npz"


@pytest.fixture(scope="module")
def model(trained_run):
    return eval_setup(trained_run / "config.yml", test_mode="inference")[1].model


@pytest.fixture(scope="module")
def glb(trained_run, dance):
    """The exported run, dancing in the data's own world."""
    config = trained_run / "config.yml"
    path = Export(load_config=config, motion=(dance,), motion_options=AS_GIVEN, colors="field", **SMALL).main()
    assert path == trained_run / "export" / "avatar.glb"
    return Glb(path)


def test_mesh_is_closed_once_its_seams_are_sewn(glb):
    mesh = trimesh.Trimesh(glb.positions, glb.faces)  # merges equal vertices
    assert mesh.is_watertight and mesh.volume > 0.02
    assert 1000 < len(glb.faces) <= SMALL["max_faces"]
    np.testing.assert_allclose(glb.weights.sum(axis=1), 1.0, atol=1e-6)


def test_clip_moves_the_mesh_as_the_deformer_does(glb, model, dance):
    """Four of a vertex's bones are kept; what they miss of the deformer's 24 is millimetres."""
    motion = place(dance, model, AS_GIVEN)
    surface = Surface(glb.positions, glb.faces.astype(np.int32), glb.normals)
    avatar, poses = AvatarMesh(model, surface), model.poses.posed(motion)
    for frame, time in enumerate(glb.clip_times("poses")):
        expected = avatar.posed_vertices(poses[frame])
        distance = np.linalg.norm(glb.posed("poses", float(time)) - expected, axis=1)
        assert distance.mean() < 0.003 and np.quantile(distance, 0.99) < 0.02


def test_person_stands_upright_on_the_floor(glb):
    posed = glb.posed()
    extent = np.ptp(posed, axis=0)
    assert posed[:, 1].min() == pytest.approx(0, abs=0.02)
    assert 1.3 < extent[1] < 2.2 and extent[1] > extent[0] > extent[2]


def test_texture_shows_the_field_at_the_surface(glb, model):
    """Colours at the vertices, read through the file's texture coordinates, are those of the field near by."""
    chosen = slice(None, None, 7)
    inside = torch.from_numpy(glb.positions[chosen] - 0.004 * glb.normals[chosen])
    with torch.no_grad():
        density, expected = (values.cpu() for values in model.field(inside.to(model.device)))
    clear = (density > 5).numpy()
    found = glb.sample_texture(glb.uv[chosen])
    assert clear.sum() > 50
    assert np.abs(found - expected.numpy())[clear].mean() < 0.06


def test_motions_start_where_the_person_stands(model, dance):
    motion = place(dance, model, MotionOptions())
    torch.testing.assert_close(motion.transl[0], model.subject.poses.transl[0])
    assert motion.fps == load_motion(dance).fps


def test_roots_go_where_the_option_says(model):
    """From where the person stands; only `as-recorded` walks three metres away."""
    stand = model.subject.stand.transl[0]
    ways = {}
    for root in get_args(Root):
        transl = place(Path("walk"), model, MotionOptions(root=root)).transl
        torch.testing.assert_close(transl[0], stand, atol=1e-5, rtol=0)
        ways[root] = float((transl - stand).norm(dim=1).max())
    assert 3.0 < ways["as-recorded"] < 3.3 and ways["follow"] < 0.1 and ways["in-place"] < 0.05


def test_looped_clip_ends_with_its_first_key(model):
    motion = place(Path("stretch"), model, MotionOptions(end_frame=61, loop=0.5))
    repeated = closed(motion)
    assert (len(motion), len(repeated)) == (60, 61)
    for name in ("global_orient", "body_pose", "transl"):
        values = getattr(repeated, name)
        assert torch.equal(values[0], values[-1])
        steps = (values[1:] - values[:-1]).abs().amax(dim=1)
        assert steps[-1] < 1.2 * steps[:-1].max() + 1e-6, "no jump into it"


def test_clip_that_jumps_is_told(trained_run, tmp_path, capsys):
    def export(**options):
        command = Export(trained_run / "config.yml", motion=(Path("stretch"),), output=tmp_path / "a.glb", **SMALL)
        command.motion_options = MotionOptions(end_frame=61, **options)
        command.main().unlink()
        return " ".join(capsys.readouterr().out.split())

    assert "stretch: players repeat clips. It jumps" in export()
    assert "players repeat" not in export(loop=0.5)


def test_posed_meshes(trained_run, dance, tmp_path):
    config = trained_run / "config.yml"
    ply = Export(load_config=config, format="ply", output=tmp_path / "new" / "stand.ply", **SMALL).main()
    rest = trimesh.load(ply, process=False)
    assert rest.is_watertight and rest.bounds[0, 1] == pytest.approx(0, abs=1e-5)
    assert np.ptp(rest.visual.vertex_colors[:, :3], axis=0).max() > 50
    obj = Export(
        load_config=config, format="obj", output=tmp_path / "a b.obj", motion=(dance,), frame=2, **SMALL
    ).main()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b.mtl", "a b.obj", "a b.png", "new"]
    posed = trimesh.load(obj)
    assert posed.visual.material.image.size == (SMALL["texture_size"],) * 2
    assert len(posed.faces) <= SMALL["max_faces"]
    with pytest.raises(InputError, match="expected no such file yet"):
        Export(load_config=config, format="obj", output=obj, **SMALL).main()


def test_coverage_is_shown_in_its_colors(trained_run, tmp_path):
    """Of a whole turn: mostly green, and the soles, on which she stands, red."""
    config, name = trained_run / "config.yml", tmp_path / "coverage.ply"
    mesh = trimesh.load(Export(config, format="ply", output=name, colors="coverage", **SMALL).main(), process=False)
    red, green, _ = np.asarray(mesh.visual.vertex_colors[:, :3], float).T
    soles = mesh.vertices[:, 1] < 0.01
    assert (green > 1.5 * red).mean() > 0.5 and (red > 2 * green)[soles].mean() > 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_config": Path("missing.yml")}, "missing.yml.*found no such file"),
        ({"motion": (Path("missing.npz"),)}, "missing.npz"),
        ({"motion": (Path("a/walk.npz"), Path("b/walk.npz"))}, "different names"),
        ({"frame": 1}, "--frame.*ply, obj or splat only"),
        ({"format": "ply", "motion": (Path("a.npz"),)}, "one motion and a frame"),
        ({"format": "obj", "frame": 99}, "--frame: expected 0 to 7, found 99"),
        ({"format": "ply", "output": Path("avatar.glb")}, "name ending in .ply"),
        ({"format": "ply", "compression": "meshopt"}, "--compression: expected with --format glb only"),
        ({"format": "obj", "bone_names": "mixamo"}, "--bone-names: expected with --format glb only"),
        ({"texture_size": 7}, "--texture-size: expected 64 to 8192"),
        ({"voxel_size": float("nan")}, "--voxel-size"),
    ],
)
def test_wrong_input_ends_in_one_error(trained_run, options, message):
    before = sorted((trained_run / "export").glob("avatar.*"))
    with pytest.raises(InputError, match=message):
        Export(**{"load_config": trained_run / "config.yml", **options}).main()
    assert sorted((trained_run / "export").glob("avatar.*")) == before
