"""Dependencies that a machine with PyTorch and nerfstudio may lack: tests that need them are skipped there, by name.

So are, on a machine with a GPU, tests of kernels on models that lie on the CPU.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder

import pytest
import torch

DEPENDENCIES = (
    "av",
    "embreex",
    "fast_simplification",
    "h5py",
    "imageio_ffmpeg",
    "joblib",
    "meshoptimizer",
    "pycocotools",
    "pxr",
    "pygltflib",
    "ray",
    "skimage",
    "trimesh",
    "xatlas",
)


interpreted_only = pytest.mark.skipif(
    torch.cuda.is_available(),
    reason="Triton's compiled kernels take no tensors of a CPU; tests/rendering compares the renderers on a GPU",
)


class _Missing(MetaPathFinder):
    """Is asked for a module when nobody else has found it."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Skip the test, or the file of tests, that imports a missing dependency."""
        if fullname in DEPENDENCIES:
            pytest.skip(f"{fullname} is not installed", allow_module_level=True)


def skip_what_misses_any() -> None:
    """Skip, from now on, what imports a missing dependency."""
    sys.meta_path.append(_Missing())
