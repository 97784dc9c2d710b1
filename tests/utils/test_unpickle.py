"""Pickles are read without running what they ask for."""

import os
import pickle

import numpy as np
import pytest
from scipy import sparse

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.unpickle import load_plain_npy, load_plain_pickle, load_plain_tree
from tests.body.bodies import random_body
from tests.body.smpl_pickle import python2_pickle, write_smpl_pickle


class Calls:
    """Pickles into a call of `function`."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_smpl_pickle_of_python_2(tmp_path, protocol):
    body = random_body()
    write_smpl_pickle(tmp_path / "body.pkl", body, protocol)
    loaded = load_plain_pickle(tmp_path / "body.pkl")
    assert loaded["v_template"].dtype == np.float64
    for key, expected in body.items():
        np.testing.assert_array_equal(loaded[key], expected, err_msg=key)
    assert str(loaded["bs_style"]) == "lbs"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_python_3(tmp_path, protocol):
    content = {
        "float": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big_endian": np.arange(4, dtype=">i4"),
        "empty": np.zeros((0, 3)),
        "bool": np.array([True, False]),
        "scalar": np.float64(1.5),
        "number": 1080,
        "list": [1.0, 2.0],
        "csc": sparse.csc_matrix(np.eye(3)),
        "csr": sparse.csr_matrix(np.diag([1.0, 0.0, 2.0])),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    loaded = load_plain_pickle(tmp_path / "a.pkl")
    assert set(loaded) == set(content)
    for key, value in content.items():
        expected = value.toarray() if sparse.issparse(value) else np.asarray(value)
        np.testing.assert_array_equal(loaded[key], expected, err_msg=key)
    assert loaded["big_endian"].dtype.isnative
    loaded["float"][0, 0] = 5  # writable, as arrays usually are


def test_entries_that_are_no_arrays_are_left_out(tmp_path):
    content = {"objects": np.array([{}, None], dtype=object), "none": None, "dict": {"a": 1}, "kept": np.ones(2)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, 2))
    assert set(load_plain_pickle(tmp_path / "a.pkl")) == {"kept"}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_command_is_not_run(tmp_path, protocol):
    marker = tmp_path / "ran"
    content = {"v_template": np.zeros(3), "evil": Calls(os.system, f"touch {marker}")}
    (tmp_path / "body.pkl").write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(InputError, match=r"body\.pkl: .*asks for (posix|nt|os)\.system; nothing of it was run"):
        load_plain_pickle(tmp_path / "body.pkl")
    assert not marker.exists()
    pickle.loads((tmp_path / "body.pkl").read_bytes())
    assert marker.exists(), "the pickle of this test does not call what it should"


@pytest.mark.parametrize(
    "target",
    [
        b"cbuiltins\neval\n",
        b"cbuiltins\ngetattr\n",
        b"c__builtin__\nexec\n",
        b"cnumpy\nload\n",
        b"cnumpy.core.multiarray\nfromfile\n",
        b"cscipy.sparse\nload_npz\n",
        b"cchumpy.ch\nChLambda\n",
        b"\x8c\x05numpy\x8c\x0cndarray.dump\x93",
        b"\x8c\x06codecs\x8c\x06decode\x93",
    ],
)
def test_other_names_are_refused(tmp_path, target):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + target + b".")
    with pytest.raises(InputError, match=r"it asks for .*nothing of it was run"):
        load_plain_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "program",
    [
        # Attributes set on a class that is on the list must not reach the real one.
        b"cnumpy\nndarray\n(N}X\x03\x00\x00\x00hitI1\nstb}X\x01\x00\x00\x00aI1\ns.",
        b"cscipy.sparse.csc\ncsc_matrix\n}X\x03\x00\x00\x00hitI1\nsb}.",
        b"c_codecs\nencode\n(N}X\x03\x00\x00\x00hitI1\nstb}.",
    ],
)
def test_classes_on_the_list_cannot_be_altered(tmp_path, program):
    import codecs

    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + program)
    with pytest.raises(InputError):
        load_plain_pickle(tmp_path / "a.pkl")
    assert not any(hasattr(item, "hit") for item in (np.ndarray, sparse.csc_matrix, codecs.encode))


@pytest.mark.parametrize("function", ["numpy\nndarray", "numpy\ndtype", "__builtin__\nset", "_codecs\nencode"])
def test_names_on_the_list_are_not_called(tmp_path, function):
    """An array of 10^15 elements would be refused by NumPy with a MemoryError, a set of a number with a TypeError."""
    program = (
        b"\x80\x02}X\x01\x00\x00\x00a" + f"c{function}\n".encode() + b"(L1000000000000000L\ntRsX\x01\x00\x00\x00bI2\ns."
    )
    (tmp_path / "a.pkl").write_bytes(program)
    assert set(load_plain_pickle(tmp_path / "a.pkl")) - {"a"} == {"b"}


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\n", pickle.dumps([1, 2]), pickle.dumps({"a": np.ones(9)})[:-40]],
    ids=["empty", "lfs pointer", "no dictionary", "cut short"],
)
def test_damaged_files(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pkl"):
        load_plain_pickle(tmp_path / "a.pkl")


def test_array_whose_shape_exceeds_its_data(tmp_path):
    raw = python2_pickle({"a": np.arange(7.0)}).replace(b"K\x07", b"K\x63")
    (tmp_path / "a.pkl").write_bytes(raw)
    with pytest.raises(InputError, match="readable pickle of arrays"):
        load_plain_pickle(tmp_path / "a.pkl")


def test_sparse_matrix_with_indices_outside(tmp_path):
    matrix = sparse.csc_matrix(np.eye(3))
    matrix.indices[0] = 1_000_000
    (tmp_path / "a.pkl").write_bytes(python2_pickle({"a": matrix}))
    with pytest.raises(InputError, match="readable pickle of arrays"):
        load_plain_pickle(tmp_path / "a.pkl")


def test_list_that_holds_itself(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}X\x01\x00\x00\x00a]q\x00h\x00as.")
    with pytest.raises(InputError):
        load_plain_pickle(tmp_path / "a.pkl")


def test_dictionaries_and_lists_within(tmp_path):
    content = {1: {"a": [{"b": np.arange(3)}, None, "text"]}, "ragged": [np.ones(2), np.ones(3)], "flat": [1, 2]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    tree = load_plain_tree(tmp_path / "a.pkl")
    np.testing.assert_array_equal(tree["1"]["a"][0]["b"], np.arange(3))
    assert tree["1"]["a"][1] is None and str(tree["1"]["a"][2]) == "text"
    assert [len(array) for array in tree["ragged"]] == [2, 3]
    np.testing.assert_array_equal(tree["flat"], [1, 2])


def test_dictionary_that_holds_itself(tmp_path):
    content = {"kept": np.ones(2)}
    content["again"] = content
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    assert "kept" in load_plain_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3), np.asfortranarray(np.eye(3)), np.array({"a": 1.5})])
def test_npy_of_numbers_and_objects(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    loaded = load_plain_npy((tmp_path / "a.npy").read_bytes(), tmp_path / "a.npy")
    if array.dtype == object:
        assert loaded == {"a": 1.5}
    else:
        np.testing.assert_array_equal(loaded, array)
    with pytest.raises(InputError, match=r"a\.npy: expected a readable pickle"):
        load_plain_npy((tmp_path / "a.npy").read_bytes()[:-1], tmp_path / "a.npy")
