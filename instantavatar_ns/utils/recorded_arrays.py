"""Arrays of NumPy, SciPy, chumpy and PyTorch out of what a pickle would have built, as `unpickle` recorded it."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import torch
from scipy import sparse

UNSUPPORTED = object()
"""In place of what is neither a container nor an array."""
_MAX_DEPTH = 8


class Recorded:
    """Something that the pickle would have built, kept as data."""

    meaning = ""
    state: Any = None

    def __new__(cls, *args: Any) -> Recorded:
        """Keep the arguments; nothing is built."""
        recorded = object.__new__(cls)
        recorded.args = args
        return recorded

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


def to_tree(value: Any, depth: int = 0) -> Any:
    """Return containers and arrays out of what the unpickler recorded; see `unpickle.load_plain_tree`.

    Args:
        value: What it recorded.
        depth: Number of containers around it; what lies deeper than a file of poses does is left out.
    """
    if depth > _MAX_DEPTH:
        return UNSUPPORTED
    if isinstance(value, dict):
        items = {_key(key): to_tree(item, depth + 1) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not UNSUPPORTED}
    if isinstance(value, Recorded) and value.meaning == "array" and value.state[2].args[0].startswith("O"):
        return _object_tree(value.state[1], value.state[4], depth + 1)
    if isinstance(value, (list, tuple)):
        try:
            whole = to_array(value)
        except ValueError:  # of different shapes
            whole = UNSUPPORTED
        if whole is not UNSUPPORTED:
            return whole
        items = [to_tree(item, depth + 1) for item in value]
        return [None if item is UNSUPPORTED else item for item in items]
    return to_array(value)


def _object_tree(shape: Any, objects: Any, depth: int) -> Any:
    """Content of an array of objects of a shape, whose items are listed row by row."""
    if shape == ():
        return to_tree(objects[0], depth)
    items = to_tree(list(objects), depth)
    return items.reshape(*shape, *items.shape[1:]) if isinstance(items, np.ndarray) else items


def _key(key: Any) -> str:
    return str(to_array(key) if isinstance(key, Recorded) else key)


def to_array(value: Any) -> Any:
    """The array that a value of the pickle stands for, `UNSUPPORTED` for entries that are none."""
    if isinstance(value, (bool, int, float, str, bytes, np.ndarray)):
        return np.asarray(value)
    if isinstance(value, (list, tuple)):
        items = [to_array(item) for item in value]
        return UNSUPPORTED if any(item is UNSUPPORTED for item in items) else np.array(items)
    if not isinstance(value, Recorded):
        return UNSUPPORTED
    decode = {
        "array": lambda: decode_array(*value.state[1:5]),
        "buffer": lambda: decode_array(value.args[2], value.args[1], value.args[3] == "F", value.args[0]),
        "bytes": lambda: np.asarray(_bytes(value)),
        "scalar": lambda: decode_array((), value.args[0], False, value.args[1]),
        "csc": lambda: _decode_sparse(sparse.csc_matrix, value.state),
        "csr": lambda: _decode_sparse(sparse.csr_matrix, value.state),
        "torch storage": lambda: _decode_storage(value.args[0]),
        "torch tensor": lambda: _decode_tensor(*value.args[:4]),
        "instance": lambda: to_array(_as_instance(value)),
        "chumpy array": lambda: to_array(value.state["x"]),
        "chumpy selection": lambda: _decode_selection(value.state),
        "chumpy reshaping": lambda: to_array(value.state["a"]).reshape(to_array(value.state["newshape"])),
    }.get(value.meaning)
    return decode() if decode else UNSUPPORTED


def _as_instance(value: Recorded) -> Any:
    """`copy_reg._reconstructor(cls, base, state)` with a state: what `cls` would have recorded itself."""
    cls = value.args[0]
    if not (isinstance(cls, type) and issubclass(cls, Recorded)) or cls.meaning == "instance":
        return None
    instance = cls()
    instance.state = value.state
    return instance


def decode_array(shape: Any, dtype: Recorded, fortran: bool, data: Any) -> Any:
    """Return the array of one of NumPy's own pickles; `UNSUPPORTED` where it holds objects or records.

    Args:
        shape: Of the array.
        dtype: Record of its dtype.
        fortran: Columns come first.
        data: Its bytes, or the record of them.
    """
    code = dtype.args[0]
    # An array of objects or records holds no numbers that could be wanted.
    if not isinstance(code, str) or not re.fullmatch(r"[biufSU]\d*", code):
        return UNSUPPORTED
    # State of a dtype: version, byte order ("|" where there is none), ...
    order = dtype.state[1] if dtype.state and dtype.state[1] in ("<", ">") else "="
    raw = _bytes(data)
    if raw is None:
        return UNSUPPORTED
    values = np.frombuffer(raw, order + code) if raw else np.zeros(0, code)
    return values.reshape(tuple(shape), order="F" if fortran else "C").astype(code)


def _decode_sparse(kind: Any, state: dict) -> np.ndarray:
    parts = tuple(to_array(state[key]) for key in ("data", "indices", "indptr"))
    shape = state["_shape"] if "_shape" in state else state["shape"]
    matrix = kind(parts, shape=tuple(int(to_array(size)) for size in shape))
    matrix.check_format(full_check=True)
    return matrix.toarray()


def _decode_selection(state: dict) -> np.ndarray:
    """chumpy's `Select`: some elements of a flattened array, reshaped."""
    selected = to_array(state["a"]).ravel()[to_array(state["idxs"])]
    return selected.reshape(to_array(state["preferred_shape"])) if "preferred_shape" in state else selected


def _bytes(data: Any) -> bytes | None:
    if isinstance(data, Recorded) and data.meaning == "bytes":
        data = data.args[0] if data.args else b""
    data = data.encode("latin1") if isinstance(data, str) else data
    return bytes(data) if isinstance(data, (bytes, bytearray)) else None


def _decode_storage(data: Any) -> np.ndarray:
    """The numbers of a PyTorch storage, which is a file of PyTorch's within the pickle."""
    storage = torch.load(io.BytesIO(_bytes(data) or b""), map_location="cpu", weights_only=True)
    return torch.empty(0, dtype=storage.dtype).set_(storage).numpy()


def _decode_tensor(storage: Any, offset: int, size: Any, stride: Any) -> np.ndarray:
    values = torch.from_numpy(to_array(storage))
    return values.as_strided(tuple(size), tuple(stride), offset).numpy().copy()
