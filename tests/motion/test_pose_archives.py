"""Poses in pickles, joblib's and PyTorch's files, and in dictionaries within them; nothing of them is run."""

import io
import os
import pickle

import numpy as np
import pytest
import torch

from instantavatar_ns.motion.pose_archives import read_arrays
from instantavatar_ns.motion.readers import read_motion_file, read_pose_file
from instantavatar_ns.utils.errors import InputError

RANDOM = np.random.default_rng(0)
POSES = RANDOM.normal(size=(4, 72))
TRANSL = RANDOM.normal(size=(4, 3))
BETAS = RANDOM.normal(size=(4, 10))
PERSON = {"pose": POSES, "trans": TRANSL, "betas": BETAS}


class Command:
    """Unpickled by the usual means, it leaves a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def check(path):
    file = read_pose_file(path)
    np.testing.assert_allclose(file.body_pose, POSES[:, 3:], rtol=1e-6)
    np.testing.assert_allclose(file.transl, TRANSL, rtol=1e-6)
    np.testing.assert_allclose(file.betas, BETAS.mean(axis=0), rtol=1e-5)


def test_dictionary_in_an_object_array(tmp_path):
    """As ROMP's .npz and TRAM's .npy."""
    content = {"smpl_thetas": POSES, "cam_trans": TRANSL, "smpl_betas": BETAS}
    np.savez(tmp_path / "m.npz", results=np.array(content, dtype=object))
    check(tmp_path / "m.npz")
    np.save(tmp_path / "m.npy", np.array(content, dtype=object))
    check(tmp_path / "m.npy")


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_in_pickles(tmp_path, protocol):
    """As TRAM's .npy, whose dictionary holds tensors of PyTorch, some of them views of others."""
    joined = torch.from_numpy(np.concatenate([POSES, TRANSL], axis=1))
    content = {"pose": joined[:, :72], "trans": joined[:, 72:, None].transpose(1, 2), "betas": torch.from_numpy(BETAS)}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(content, protocol))
    check(tmp_path / "m.pkl")
    np.save(tmp_path / "m.npy", np.array(content, dtype=object))
    check(tmp_path / "m.npy")


def test_tensor_that_reaches_beyond_its_storage(tmp_path):
    content = pickle.dumps({"pose": torch.zeros(5, 72)}, 2).replace(b"K\x05KH\x86", b"K\x63KH\x86")
    (tmp_path / "m.pkl").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.pkl: expected a readable pickle"):
        read_arrays(tmp_path / "m.pkl", "world")


def test_storage_that_runs_commands(tmp_path):
    buffer = io.BytesIO()
    torch.save(Command(tmp_path / "ran"), buffer)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"pose": Storage(buffer.getvalue())}, 2))
    with pytest.raises(InputError, match=r"m\.pkl: "):
        read_arrays(tmp_path / "m.pkl", "world")
    assert not (tmp_path / "ran").exists()


class Storage:
    """Pickles as PyTorch's storages do."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


def test_list_of_equal_arrays(tmp_path):
    np.savez(tmp_path / "m.npz", trans=TRANSL, betas=BETAS, poses=object_array(list(POSES)))
    check(tmp_path / "m.npz")


def object_array(items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def test_metadata_of_unknown_classes_does_no_harm(tmp_path):
    np.savez(tmp_path / "m.npz", **PERSON, source=np.array(tmp_path, dtype=object))
    check(tmp_path / "m.npz")
    np.savez(tmp_path / "m.npz", pose=POSES, trans=np.array(tmp_path, dtype=object))
    with pytest.raises(InputError, match=r"m\.npz: .*it asks for pathlib.*nothing of it was run"):
        read_motion_file(tmp_path / "m.npz")


def test_single_array(tmp_path):
    np.save(tmp_path / "m.npy", POSES.astype(np.float32))
    np.testing.assert_allclose(read_motion_file(tmp_path / "m.npy")[0].body_pose, POSES[:, 3:], rtol=1e-6)
    with pytest.raises(InputError, match=r"m\.npy: expected SMPL's translation"):
        read_pose_file(tmp_path / "m.npy")


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)], ids=str)
def test_joblib(tmp_path, compress):
    joblib = pytest.importorskip("joblib")
    content = {np.int64(0): {**PERSON, "trans": np.asfortranarray(TRANSL), "ids": object_array([{}, None])}}
    joblib.dump(content, tmp_path / "m.pkl", compress=compress)
    check(tmp_path / "m.pkl")


def test_joblib_file_that_runs_commands(tmp_path):
    joblib = pytest.importorskip("joblib")
    for number, evil in enumerate((Command(tmp_path / "ran"), object_array([Command(tmp_path / "ran")]))):
        path = tmp_path / f"{number}.pkl"
        joblib.dump({**PERSON, "evil": evil}, path)
        with pytest.raises(InputError, match="nothing of it was run"):
            read_arrays(path, "world")
    assert not (tmp_path / "ran").exists()


def test_joblib_file_cut_short(tmp_path):
    joblib = pytest.importorskip("joblib")
    joblib.dump(PERSON, tmp_path / "m.pkl")
    data = (tmp_path / "m.pkl").read_bytes()
    for length in (len(data) // 3, len(data) - 10):
        (tmp_path / "m.pkl").write_bytes(data[:length])
        with pytest.raises(InputError, match=r"m\.pkl: expected a readable pickle"):
            read_arrays(tmp_path / "m.pkl", "world")


def test_object_arrays_that_run_commands(tmp_path):
    np.savez(tmp_path / "m.npz", results=np.array(Command(tmp_path / "ran"), dtype=object))
    np.save(tmp_path / "m.npy", np.array(Command(tmp_path / "ran"), dtype=object))
    torch.save({"poses": Command(tmp_path / "ran")}, tmp_path / "m.pt")
    for name in ("m.npz", "m.npy", "m.pt"):
        with pytest.raises(InputError, match=rf"{name}: .*nothing of it was run"):
            read_arrays(tmp_path / name, "world")
    assert not (tmp_path / "ran").exists()


def test_files_of_pytorch(tmp_path):
    torch.save({name: torch.from_numpy(array) for name, array in PERSON.items()}, tmp_path / "m.pt")
    check(tmp_path / "m.pt")
    (tmp_path / "m.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"m\.pt: expected a PyTorch file"):
        read_arrays(tmp_path / "m.pt", "world")


def test_poses_in_camera_and_world(tmp_path):
    """GVHMR's and PromptHMR's files have both; training takes those in the camera, motions those in the world."""

    def shifted(by):
        return {
            "global_orient": torch.from_numpy(POSES[:, :3]),
            "body_pose": torch.from_numpy(POSES[:, 3:66]),
            "transl": torch.from_numpy(TRANSL) + by,
            "betas": torch.from_numpy(BETAS),
        }

    content = {"smpl_params_global": shifted(0), "smpl_params_incam": shifted(5), "K_fullimg": torch.eye(3)}
    torch.save({**content, "net_outputs": {"pred_smpl_params_global": shifted(9)}}, tmp_path / "m.pt")
    np.testing.assert_allclose(read_motion_file(tmp_path / "m.pt")[0].transl, TRANSL, rtol=1e-5)
    np.testing.assert_allclose(read_pose_file(tmp_path / "m.pt").transl, TRANSL + 5, rtol=1e-5)
    people = {"people": {"1": {"smplx_cam": PERSON, "smplx_world": {**PERSON, "trans": TRANSL + 7}}}}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(people))
    check(tmp_path / "m.pkl")
    np.testing.assert_allclose(read_motion_file(tmp_path / "m.pkl")[0].transl, TRANSL + 7, rtol=1e-5)
    wham = {0: {**PERSON, "pose_world": POSES, "trans_world": TRANSL + 3}}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(wham))
    check(tmp_path / "w.pkl")
    np.testing.assert_allclose(read_motion_file(tmp_path / "w.pkl")[0].transl, TRANSL + 3, rtol=1e-5)


def test_the_set_of_poses_is_named(tmp_path, capsys):
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"person": PERSON}))
    read_arrays(tmp_path / "m.pkl", "world")
    assert "Its poses are those of person." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({0: PERSON, 7: PERSON}, r"one set of SMPL poses, found 2: 0, 7\. Save the poses of one person"),
        ({f"{i:08d}.png": PERSON for i in range(9)}, r"found 9: 00000000\.png, .*, \.\.\."),
        ({"smpl_thetas": POSES, "cam_trans": TRANSL, "center_confs": np.ones((4, 1))}, "several people in one image"),
        (
            {"vertices": np.zeros((4, 6890, 3)), "meta": {}, "smpl": {"global_orient": POSES[:, :3]}},
            r"found objects in meta, smpl/global_orient \(4, 3\), vertices \(4, 6890, 3\)",
        ),
        ([1, {}], "found no named arrays"),
        ({}, "found nothing"),
    ],
    ids=["people", "images", "ROMP's people", "other arrays", "list", "nothing"],
)
def test_files_without_one_set_of_poses(tmp_path, content, message):
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=rf"m\.pkl: .*{message}"):
        read_arrays(tmp_path / "m.pkl", "world")
