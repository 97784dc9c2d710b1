"""NumPy archives are read without pickles and with errors that name the file."""

import numpy as np
import pytest

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.npz import read_npz


def test_arrays_are_read_and_objects_left_out(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), objects=np.array([{}], dtype=object), text="lbs")
    arrays = read_npz(tmp_path / "a.npz", "a body", "Look elsewhere")
    assert set(arrays) == {"x", "text"}
    np.testing.assert_array_equal(arrays["x"], [0, 1, 2])


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
