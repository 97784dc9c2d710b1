"""Whether Triton's kernels run here; imports no Triton, which is no part of PyTorch on every platform."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch


def interpreting() -> bool:
    """Whether Triton's kernels are run by its interpreter, on CPU tensors (for tests)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def triton_usable() -> bool:
    """Whether there is Triton, and an NVIDIA GPU of compute capability 8.0 or later (or the interpreter)."""
    if find_spec("triton") is None:
        return False
    if not torch.cuda.is_available():
        return interpreting()
    return torch.version.hip is None and torch.cuda.get_device_capability() >= (8, 0)
