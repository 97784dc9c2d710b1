"""Read arrays out of pickles without running what they ask for.

A pickle is a program: `pickle.load` calls whatever functions it names. SMPL's models, PeopleSnapshot's cameras and
AIST++'s motions come as pickles, so they are read in two steps. An unpickler that knows no real function at all records
what the file would build (`_Recorded`), and only for the few names on a list; then the records of NumPy arrays, SciPy
sparse matrices and chumpy arrays are turned into arrays by the code below.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from instantavatar_ns.errors import InputError

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
    ("_codecs", "encode"): "bytes",
    **{(module, "bytes"): "bytes" for module in _BUILTINS},
}
"""What each name that may occur stands for. None of them is ever looked up."""

_UNSUPPORTED = object()


class _Recorded:
    """Something that the pickle would have built, kept as data."""

    meaning = ""
    state: Any = None

    def __new__(cls, *args: Any) -> _Recorded:
        recorded = object.__new__(cls)
        recorded.args = args
        return recorded

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _RecordingUnpickler(pickle.Unpickler):
    """Builds containers, numbers and text; records everything else."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path
        # A pickle can set attributes on the classes it gets, so each file gets classes of its own.
        self._classes: dict[tuple[str, str], type[_Recorded]] = {}

    def find_class(self, module: str, name: str) -> type[_Recorded]:
        key = (module, name)
        if key not in _MEANINGS:
            raise InputError(
                self._path,
                f"expected a pickle of arrays only, but it asks for {module}.{name}; nothing of it was run",
                "Get the file from its original source; if it is from there, convert it to .npz where you trust it",
            )
        if key not in self._classes:
            self._classes[key] = type("_RecordedHere", (_Recorded,), {"meaning": _MEANINGS[key]})
        return self._classes[key]


def load_plain_pickle(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a pickled dictionary, of Python 2 or 3, without running anything the file asks for.

    Args:
        path: A pickle of a dictionary of NumPy arrays, SciPy sparse matrices (returned dense), chumpy arrays, numbers
            and text. Other entries are left out.

    Raises:
        InputError: The file is missing, damaged, not a dictionary, or asks for anything but such arrays.
    """
    advice = "Get the file again from its original source"
    try:
        with path.open("rb") as file:
            content = _RecordingUnpickler(file, path).load()
        if not isinstance(content, dict):
            raise InputError(path, f"expected a pickled dictionary, found a {type(content).__name__}", advice)
        arrays = {key: _to_array(value) for key, value in content.items() if isinstance(key, str)}
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(path, "expected a pickle of arrays that fit into memory", advice) from error
    except Exception as error:
        # A damaged pickle makes the unpickler raise nearly anything.
        message = f"expected a readable pickle of arrays ({type(error).__name__}: {error})"
        raise InputError(path, message, advice) from error
    return {key: value for key, value in arrays.items() if isinstance(value, np.ndarray)}


def _to_array(value: Any) -> Any:
    """The array that a value of the pickle stands for, `_UNSUPPORTED` for entries that are none."""
    if isinstance(value, (bool, int, float, str, np.ndarray)):
        return np.asarray(value)
    if isinstance(value, (list, tuple)):
        items = [_to_array(item) for item in value]
        return _UNSUPPORTED if any(item is _UNSUPPORTED for item in items) else np.array(items)
    if not isinstance(value, _Recorded):
        return _UNSUPPORTED
    decode = {
        "array": lambda: _decode_array(*value.state[1:5]),
        "buffer": lambda: _decode_array(value.args[2], value.args[1], value.args[3] == "F", value.args[0]),
        "scalar": lambda: _decode_array((), value.args[0], False, value.args[1]),
        "csc": lambda: _decode_sparse(sparse.csc_matrix, value.state),
        "csr": lambda: _decode_sparse(sparse.csr_matrix, value.state),
        "instance": lambda: _to_array(_as_instance(value)),
        "chumpy array": lambda: _to_array(value.state["x"]),
        "chumpy selection": lambda: _decode_selection(value.state),
        "chumpy reshaping": lambda: _to_array(value.state["a"]).reshape(_to_array(value.state["newshape"])),
    }.get(value.meaning)
    return decode() if decode else _UNSUPPORTED


def _as_instance(value: _Recorded) -> Any:
    """`copy_reg._reconstructor(cls, base, state)` with a state: what `cls` would have recorded itself."""
    cls = value.args[0]
    if not (isinstance(cls, type) and issubclass(cls, _Recorded)) or cls.meaning == "instance":
        return None
    instance = cls()
    instance.state = value.state
    return instance


def _decode_array(shape: Any, dtype: _Recorded, fortran: bool, data: Any) -> Any:
    """The array of NumPy's own pickles: shape, dtype, order and raw bytes."""
    code = dtype.args[0]
    # An array of objects or records holds no numbers that could be wanted.
    if not isinstance(code, str) or not re.fullmatch(r"[biufSU]\d*", code):
        return _UNSUPPORTED
    # State of a dtype: version, byte order ("|" where there is none), ...
    order = dtype.state[1] if dtype.state and dtype.state[1] in ("<", ">") else "="
    if isinstance(data, _Recorded) and data.meaning == "bytes":
        data = data.args[0] if data.args else b""
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(raw, bytes | bytearray):
        return _UNSUPPORTED
    values = np.frombuffer(raw, order + code) if raw else np.zeros(0, code)
    return values.reshape(tuple(shape), order="F" if fortran else "C").astype(code)


def _decode_sparse(kind: Any, state: dict) -> np.ndarray:
    parts = tuple(_to_array(state[key]) for key in ("data", "indices", "indptr"))
    shape = state["_shape"] if "_shape" in state else state["shape"]
    matrix = kind(parts, shape=tuple(int(_to_array(size)) for size in shape))
    matrix.check_format(full_check=True)
    return matrix.toarray()


def _decode_selection(state: dict) -> np.ndarray:
    """chumpy's `Select`: some elements of a flattened array, reshaped."""
    selected = _to_array(state["a"]).ravel()[_to_array(state["idxs"])]
    return selected.reshape(_to_array(state["preferred_shape"])) if "preferred_shape" in state else selected
