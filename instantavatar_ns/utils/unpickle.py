"""Read arrays out of pickles without running what they ask for.

A pickle is a program: `pickle.load` calls whatever functions it names. SMPL's models, PeopleSnapshot's cameras and
AIST++'s motions come as pickles, so they are read in two steps. An unpickler that knows no real function at all records
what the file would build (`Recorded`), and only for the few names on a list; then the records of arrays are turned into
arrays by `recorded_arrays`.

joblib puts the bytes of each array behind the record of its shape, in the middle of the pickle, and may compress the
whole file; NumPy's arrays of objects are pickles behind a header.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.recorded_arrays import UNSUPPORTED, Recorded, decode_array, to_tree

_NUMPY_CORE = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUILTINS = ("__builtin__", "builtins")
_MEANINGS = {
    **{(module, "_reconstruct"): "array" for module in _NUMPY_CORE},
    **{(module, "scalar"): "scalar" for module in _NUMPY_CORE},
    **{(module.replace("multiarray", "numeric"), "_frombuffer"): "buffer" for module in _NUMPY_CORE},
    ("numpy", "ndarray"): "class",
    ("numpy", "dtype"): "dtype",
    **{(f"scipy.sparse.{module}", "csc_matrix"): "csc" for module in ("csc", "_csc")},
    **{(f"scipy.sparse.{module}", "csr_matrix"): "csr" for module in ("csr", "_csr")},
    ("chumpy.ch", "Ch"): "chumpy array",
    ("chumpy.reordering", "Select"): "chumpy selection",
    ("chumpy.reordering", "Reshape"): "chumpy reshaping",
    **{(module, "_reconstructor"): "instance" for module in ("copy_reg", "copyreg")},
    **{(module, "object"): "class" for module in _BUILTINS},
    **{(module, "set"): "ignored" for module in _BUILTINS},
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): "joblib array",
    ("torch._utils", "_rebuild_tensor_v2"): "torch tensor",
    ("torch.storage", "_load_from_bytes"): "torch storage",
    ("collections", "OrderedDict"): "ignored",
    ("_codecs", "encode"): "bytes",
    **{(module, "bytes"): "bytes" for module in _BUILTINS},
}
"""Meaning of each name that may occur. None of them is ever looked up."""

_DECOMPRESS: dict[bytes, Callable[[bytes], bytes]] = {
    b"x": zlib.decompress,
    b"\x1f\x8b": gzip.decompress,
    b"BZ": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
    b"\x5d\x00": lzma.decompress,
}
"""By the first bytes of a file that joblib compressed. No pickle begins with them."""
_ADVICE = "Get the file again from its original source"


class _Recording:
    """Builds containers, numbers and text, and records everything else; mixed into Python's two unpicklers."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")  # pyright: ignore[reportCallIssue]
        self._source, self._path = file, path
        # A pickle can set attributes on the classes it gets, so each file gets classes of its own.
        self._classes: dict[tuple[str, str], type[Recorded]] = {}

    def find_class(self, module: str, name: str) -> type[Recorded]:
        key = (module, name)
        if key not in _MEANINGS:
            raise InputError(
                self._path,
                f"expected a pickle of arrays only, but it asks for {module}.{name}; nothing of it was run",
                "Get the file from its original source; if it is from there, convert it to .npz where you trust it",
            )
        if key not in self._classes:
            self._classes[key] = type("_RecordedHere", (Recorded,), {"meaning": _MEANINGS[key]})
        return self._classes[key]


class _RecordingUnpickler(_Recording, pickle.Unpickler):
    """Of plain pickles; the faster one."""

    def find_class(self, module: str, name: str) -> type[Recorded]:
        if module == "joblib.numpy_pickle":
            raise _NotPlain
        return super().find_class(module, name)


class _NotPlain(Exception):
    """The pickle has joblib's arrays among its instructions."""


class _JoblibUnpickler(_Recording, pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Of joblib's; the one in Python, which can be stopped where the bytes of an array begin."""

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)  # pyright: ignore[reportAttributeAccessIssue]

    def load_build(self) -> None:
        """Give a record its state; if it is an array of joblib, read the bytes that follow."""
        super().load_build()  # pyright: ignore[reportAttributeAccessIssue]
        built = self.stack[-1]  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(built, Recorded) and built.meaning == "joblib array":
            self.stack[-1] = self._read_array(built.state)  # pyright: ignore[reportAttributeAccessIssue]

    def _read_array(self, state: dict) -> Any:
        code = state["dtype"].args[0]
        if code.startswith("O"):
            return type(self)(self._source, self._path).load()
        if state.get("numpy_array_alignment_bytes") is not None:
            self._source.read(self._source.read(1)[0])
        size = np.dtype(code).itemsize * int(np.prod(state["shape"], dtype=object))
        return decode_array(state["shape"], state["dtype"], state["order"] == "F", self._source.read(size))

    dispatch[pickle.BUILD[0]] = load_build  # pyright: ignore[reportArgumentType]


def load_plain_pickle(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a pickled dictionary, of Python 2 or 3, without running anything the file asks for.

    Args:
        path: A pickle of a dictionary of NumPy arrays, SciPy sparse matrices (returned dense), chumpy arrays, PyTorch
            tensors, numbers and text. Other entries are left out.

    Raises:
        InputError: The file is missing, damaged, not a dictionary, or asks for anything but such arrays.
    """
    content = load_plain_tree(path)
    if not isinstance(content, dict):
        kind = "single array" if isinstance(content, np.ndarray) else type(content).__name__
        raise InputError(path, f"expected a pickled dictionary, found a {kind}", _ADVICE)
    return {key: value for key, value in content.items() if isinstance(value, np.ndarray)}


def load_plain_tree(path: Path) -> Any:
    """Read a pickle, joblib's too, as dictionaries and lists of arrays; see `load_plain_pickle`.

    Returns:
        Dictionaries (with keys as text), lists, and arrays in place of all numbers and text. Lists of equal things are
        arrays. Entries of other kinds are left out of dictionaries and are None in lists.
    """

    def load() -> Any:
        data = path.read_bytes()
        for start, decompress in _DECOMPRESS.items():
            if data.startswith(start):
                data = decompress(data)
                break
        try:
            return _RecordingUnpickler(io.BytesIO(data), path).load()
        except _NotPlain:
            return _JoblibUnpickler(io.BytesIO(data), path).load()

    return _checked_tree(path, load)


def load_plain_npy(data: bytes, path: Path) -> Any:
    """Read NumPy's `.npy`, of numbers or of objects, as `load_plain_tree` does.

    Args:
        data: Content of the file.
        path: The file, for errors only.

    Raises:
        InputError: It is damaged, or asks for anything but arrays.
    """

    def load() -> Any:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read_header[min(version[0], 2)](file)
        if dtype.hasobject:
            return _RecordingUnpickler(file, path).load()
        return np.frombuffer(file.read(), dtype).reshape(shape, order="F" if fortran else "C").copy()

    return _checked_tree(path, load)


def _checked_tree(path: Path, load: Callable[[], Any]) -> Any:
    try:
        tree = to_tree(load())
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(path, "expected a pickle of arrays that fit into memory", _ADVICE) from error
    except Exception as error:
        # A damaged pickle makes the unpickler raise nearly anything.
        message = f"expected a readable pickle of arrays ({type(error).__name__}: {error})"
        raise InputError(path, message, _ADVICE) from error
    return None if tree is UNSUPPORTED else tree
