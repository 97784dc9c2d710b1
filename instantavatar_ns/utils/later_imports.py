"""Modules that are imported when they are first used, where nerfstudio imports them before it knows of any use.

`nerfstudio.engine.trainer` imports the viewer, which imports splatfacto, which imports PyTorch's compiler; the pipeline
imports torchvision for one function of the evaluation, which imports the compiler too; the data manager imports all
methods' data parsers. A training needs none of it. nerfstudio says `from module import Name`, which the standard
library's `LazyLoader` cannot delay, since the name is asked for at once. Here the name becomes a stand-in.

    with imported_later():
        from nerfstudio.engine import trainer     # trainer.ViewerState is a stand-in
    trainer.ViewerState(...)                      # imports the viewer, and calls its class

When the real module is imported, by a stand-in or by anyone else, its names take the places of the stand-ins. So what
runs later in the same process, ns-train for another method included, finds what it would have found.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, reduce, wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch

from instantavatar_ns.utils.replaced import replaced

# What the help does not use; and of it, what a training without a viewer does not use either.
MODULES = (
    "h5py",  # one data format
    "matplotlib",  # images of depth
    "nerfstudio.configs.dataparser_configs",  # all methods' data parsers: COLMAP, requests, matplotlib
    "nerfstudio.configs.method_configs",  # all methods
    "nerfstudio.viewer.render_state_machine",
    "nerfstudio.viewer.viewer",  # splatfacto, gsplat, PyTorch's compiler
    "nerfstudio.viewer_legacy",
    "scipy.interpolate",  # knots of poses, by the training
    "scipy.ndimage",
    "torch.utils.tensorboard",
    "torchvision",  # PyTorch's compiler
    "viser",
)
# Where stand-ins are replaced. Elsewhere they go on as stand-ins, which are as good, but slower.
_USERS = ("nerfstudio", "instantavatar_ns")
_COMPILER = "torch._dynamo"
# What torchmetrics imports for its functions of sound and text, where it is installed: up to half of its seconds.
_SOUND_AND_TEXT = ("scipy.signal", "transformers")


@contextmanager
def imported_later(modules: Sequence[str] = MODULES) -> Iterator[None]:
    """Give stand-ins to who imports some modules meanwhile; modules that are imported already stay as they are.

    Args:
        modules: Full names; their submodules are meant too.
    """
    finder = _StandInFinder(tuple(name for name in modules if name not in sys.modules))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, StandInModule)]:
            _forget(name)
        _Replacing.await_(finder.given)


class StandIn:
    """A name of a module that is imported when the name is called, tested against, or asked for an attribute.

    While imports are put off, its attributes are stand-ins too: classes take some for constants of their own.
    """

    def __init__(self, module: str, *path: str) -> None:
        self._module, self._path = module, path

    def _real(self) -> Any:
        module = import_module(self._module)
        if isinstance(module, StandInModule):
            raise ImportError(f"{self._module} is used while its import is put off: take it from later_imports.MODULES")
        return reduce(getattr, self._path, module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what the name stands for."""
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of what the name stands for."""
        if name.startswith("__"):  # asked by `typing` and `inspect`, which take a stand-in for what it is
            raise AttributeError(name)
        if isinstance(sys.modules.get(self._module), StandInModule):
            return StandIn(self._module, *self._path, name)
        return getattr(self._real(), name)

    def __getitem__(self, key: Any) -> Any:
        """Return an item of what the name stands for."""
        return self._real()[key]

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        """Refuse to be a base: Python would make another stand-in of the class, which fails when it is used.

        Raises:
            ImportError: Always.
        """
        name = ".".join((self._module, *self._path))
        raise ImportError(
            f"{name} is a base of a class that is made while its import is put off: import that class later"
        )

    def __instancecheck__(self, instance: object) -> bool:
        """Tell whether something is of the class that the name stands for."""
        return isinstance(instance, self._real())


class StandInModule(ModuleType):
    """A module that is imported when one of its names is used."""

    def __getattr__(self, name: str) -> Any:
        """Return a stand-in while imports are put off, and then the real module's attribute."""
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            return StandIn(self.__name__, name)
        return getattr(import_module(self.__name__), name)


class _StandInFinder(MetaPathFinder, Loader):
    """Finds stand-ins for some modules and for what lies below them."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._modules = modules
        self.given: set[str] = set()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not any(fullname == name or fullname.startswith(f"{name}.") for name in self._modules):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self.given.add(spec.name)
        return StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: that is the point."""


class _Replacing(MetaPathFinder, Loader):
    """Imports real modules as everybody does, and puts their names where their stand-ins were."""

    def __init__(self) -> None:
        self.awaited: set[str] = set()
        self._loaders: dict[str, Loader] = {}

    @classmethod
    def await_(cls, modules: set[str]) -> None:
        """Have stand-ins replaced when these modules are imported."""
        (finder,) = [other for other in sys.meta_path if isinstance(other, cls)] or [cls()]
        finder.awaited |= modules
        if finder not in sys.meta_path and finder.awaited:
            sys.meta_path.insert(0, finder)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname not in self.awaited:
            return None
        self.awaited.remove(fullname)  # the search below shall go on to other finders
        if not self.awaited:
            with suppress(ValueError):  # another thread, whose module was awaited last too, has done it
                sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            self._loaders[fullname] = spec.loader
            spec.loader = self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loaders[spec.name].create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        loader = self._loaders.pop(name)
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = loader
        loader.exec_module(module)
        _replace(module)


def _replace(module: ModuleType) -> None:
    """Put a module, and its names, where stand-ins for them are among the globals of nerfstudio and this package."""
    for user in [other for name, other in sys.modules.items() if name.partition(".")[0] in _USERS]:
        for key, value in list(vars(user).items()):
            if isinstance(value, StandInModule) and value.__name__ == module.__name__:
                setattr(user, key, module)
            elif type(value) is StandIn and value._module == module.__name__:
                setattr(user, key, value._real())


def _forget(name: str) -> None:
    stand_in = sys.modules.pop(name)
    parent, _, child = name.rpartition(".")
    if parent in sys.modules and vars(sys.modules[parent]).get(child) is stand_in:
        delattr(sys.modules[parent], child)


class _NoCompiler(ModuleType):
    """Stand-in for PyTorch's compiler: all attributes but its two methods import the true module.

    PyTorch marks functions that must not be compiled, optimizers' among them, and imports the compiler, a second's
    work, when the first of them is called.
    """

    def disable(self, fn: Any = None, recursive: bool = True, **options: Any) -> Any:
        """Return a function as it is until the real compiler is there, which then marks it as not to be compiled."""
        marked = []

        @wraps(fn)
        def called(*args: Any, **kwargs: Any) -> Any:
            if isinstance(sys.modules.get(_COMPILER), _NoCompiler):
                return fn(*args, **kwargs)
            if not marked:
                marked.append(import_module(_COMPILER).disable(fn, recursive, **options))
            return marked[0](*args, **kwargs)

        return called

    def graph_break(self, msg: str = "") -> None:
        """Do nothing: there is no graph. Optimizers call this at each step."""

    def __getattr__(self, name: str) -> Any:
        """Import the real compiler: asked for a submodule (`__path__`), too."""
        if name in ("__file__", "__spec__", "__wrapped__"):  # asked by `inspect` of every module there is
            raise AttributeError(name)
        if sys.modules.get(_COMPILER) is self:
            del sys.modules[_COMPILER]
        return getattr(import_module(_COMPILER), name)


@cache
def torchmetrics_of_images() -> Any:
    """Return torchmetrics' functions of images, imported without what only its functions of sound and text need."""
    with imported_later(_SOUND_AND_TEXT):
        return import_module("torchmetrics.functional.image")


@contextmanager
def without_symbolic_shapes() -> Iterator[None]:
    """Have numpy broadcast shapes: PyTorch imports sympy for it, half a second, when nerfstudio makes its cameras."""
    with replaced(torch, "broadcast_shapes", lambda *shapes: torch.Size(np.broadcast_shapes(*shapes))):
        yield


def without_compiler() -> None:
    """Have PyTorch's compiler imported when somebody compiles, unless it is imported already."""
    sys.modules.setdefault(_COMPILER, _NoCompiler(_COMPILER))
