"""Writes pickles that look like SMPL's own: Python 2's, with chumpy arrays and SciPy's old module names."""

from __future__ import annotations

import io
import pickle
import sys
import types
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

_OLD_NAMES = {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "scipy.sparse._csc": "scipy.sparse.csc",
    "copyreg": "copy_reg",
    "builtins": "__builtin__",
}


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes text and bytes as Python 2's `str`, and globals under their names of then."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_python2_str(self, text: str | bytes) -> None:
        raw = text.encode("latin1") if isinstance(text, str) else text
        if self.proto == 0:
            self.write(b"S" + repr(raw)[1:].encode("ascii") + b"\n")
        else:
            self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_python2_str

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = _OLD_NAMES.get(obj.__module__, obj.__module__)
        self.write(pickle.GLOBAL + f"{module}\n{name or obj.__name__}\n".encode("ascii"))
        self.memoize(obj)

    dispatch[types.FunctionType] = dispatch[type] = save_global


@contextmanager
def fake_chumpy():
    """Module `chumpy` with the two classes that SMPL's files hold, which keep their state as chumpy's do."""
    names = {"chumpy": [], "chumpy.ch": ["Ch"], "chumpy.reordering": ["Select"]}
    modules = {}
    for module_name, classes in names.items():
        modules[module_name] = types.ModuleType(module_name)
        for name in classes:
            setattr(modules[module_name], name, type(name, (), {"__module__": module_name}))
    sys.modules.update(modules)
    try:
        yield modules["chumpy.ch"].Ch, modules["chumpy.reordering"].Select
    finally:
        for module_name in names:
            del sys.modules[module_name]


def chumpy_state(**terms: Any) -> dict[str, Any]:
    """Fields of chumpy's arrays besides their terms."""
    return {"_dirty_vars": {"x"}, "_itr": None, "_depends_on_deps": {}, "_make_dense": False, **terms}


def python2_pickle(content: Any, protocol: int = 2) -> bytes:
    """The pickle of `content` as Python 2 wrote it."""
    file = io.BytesIO()
    Python2Pickler(file, protocol).dump(content)
    return file.getvalue()


def write_smpl_pickle(path: Path, body: dict[str, np.ndarray], protocol: int = 2) -> None:
    """Write a body as SMPL's v1.0 and v1.1 models are kept."""
    from scipy import sparse

    with fake_chumpy() as (ch, select):
        plain, inner, chosen = ch(), ch(), select()
        plain.__dict__.update(chumpy_state(x=body["v_template"]))
        # The shape space of v1.1 is a selection of the first 10 of more directions.
        more = np.concatenate([body["shapedirs"], np.full((*body["shapedirs"].shape[:2], 3), 7.0)], axis=2)
        inner.__dict__.update(chumpy_state(x=more))
        indices = np.arange(more.size).reshape(more.shape)[..., : body["shapedirs"].shape[2]]
        chosen.__dict__.update(chumpy_state(a=inner, idxs=indices.ravel(), preferred_shape=indices.shape))
        content = {
            "v_template": plain,
            "shapedirs": chosen,
            "posedirs": np.asfortranarray(body["posedirs"]),
            "J_regressor": sparse.csc_matrix(body["J_regressor"]),
            "weights": body["weights"],
            "kintree_table": body["kintree_table"].astype(np.uint32),
            "f": body["f"].astype(np.uint32),
            "bs_style": "lbs",
            "bs_type": "lrotmin",
            "vert_sym_idxs": np.arange(3),
        }
        path.write_bytes(python2_pickle(content, protocol))
