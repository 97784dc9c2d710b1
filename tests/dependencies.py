"""Dependencies that a machine with PyTorch and nerfstudio may lack: tests that need them are skipped there, by name."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder

import pytest

DEPENDENCIES = ("embreex", "fast_simplification", "h5py", "imageio_ffmpeg", "pygltflib", "skimage", "trimesh", "xatlas")


class _Missing(MetaPathFinder):
    """Is asked for a module when nobody else has found it."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Skip the test, or the file of tests, that imports a missing dependency."""
        if fullname in DEPENDENCIES:
            pytest.skip(f"{fullname} is not installed", allow_module_level=True)


def skip_what_misses_any() -> None:
    """Skip, from now on, what imports a missing dependency."""
    sys.meta_path.append(_Missing())
