"""NumPy archives are read without pickles and with errors that name the file."""

import os

import numpy as np
import pytest

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.npz import read_npz, read_npz_entries


def test_arrays_are_read_and_objects_left_out(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), objects=np.array([{}], dtype=object), text="lbs")
    arrays = read_npz(tmp_path / "a.npz", "a body", "Look elsewhere")
    assert set(arrays) == {"x", "text"}
    np.testing.assert_array_equal(arrays["x"], [0, 1, 2])


def test_numbers_saved_as_objects(tmp_path):
    """NumPy makes objects of rows in a list that it was told to make an array of dtype object of."""
    rows = np.random.default_rng(0).normal(size=(5, 3))
    arrays_in_array = np.empty(5, object)
    for index, row in enumerate(rows):
        arrays_in_array[index] = row
    path = tmp_path / "a.npz"
    np.savez(
        path,
        numbers=rows.astype(object),
        columns=np.asfortranarray(rows.astype(object)),
        arrays=arrays_in_array,
        height=np.array(64, object),
        ragged=np.array([rows, None], object),
    )
    arrays, objects = read_npz_entries(path, "numbers", "Look elsewhere")
    for name in ("numbers", "columns", "arrays"):
        np.testing.assert_array_equal(arrays[name], rows)
        assert arrays[name].dtype == np.float64
    assert arrays["height"] == 64 and objects == ["ragged"]


class Command:
    """Runs a command when it is unpickled by Python's own unpickler."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_objects_that_run_commands(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([Command(tmp_path / "ran")], object), y=1)
    assert set(read_npz(tmp_path / "a.npz", "numbers", "Look elsewhere")) == {"y"}
    assert not (tmp_path / "ran").exists()


def write_text(path):
    path.write_text("version https://git-lfs.github.com/spec/v1")


def write_single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def write_cut_short(path):
    np.savez(path, x=np.zeros(1000))
    path.write_bytes(path.read_bytes()[:500])


def write_flipped(path):
    np.savez_compressed(path, x=np.random.default_rng(0).random(1000))
    content = bytearray(path.read_bytes())
    content[300] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("write", [write_text, write_single_array, write_cut_short, write_flipped])
def test_damaged_files(tmp_path, write):
    write(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a\.npz: expected a body in a NumPy .npz archive \(.*\)\. Look elsewhere\."):
        read_npz(tmp_path / "a.npz", "a body", "Look elsewhere")


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"a\.npz: expected a body, found no such file\. Look elsewhere\."):
        read_npz(tmp_path / "a.npz", "a body", "Look elsewhere")
