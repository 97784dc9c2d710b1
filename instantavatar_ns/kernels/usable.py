"""Test for Triton's kernels; imports no Triton, which is no part of PyTorch on every platform."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch


def interpreting() -> bool:
    """Return True if Triton's interpreter runs the kernels, on CPU tensors (for tests)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def triton_usable() -> bool:
    """Return True if there is Triton, with an NVIDIA GPU of compute capability 8.0 or later or its interpreter."""
    if find_spec("triton") is None:
        return False
    if not torch.cuda.is_available():
        return interpreting()
    return torch.version.hip is None and torch.cuda.get_device_capability() >= (8, 0)
