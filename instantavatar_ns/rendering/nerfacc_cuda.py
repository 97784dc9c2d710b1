"""Test for nerfacc's compiled CUDA functions, which are built on first use where there is a compiler."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch
from nerfstudio.utils.rich_utils import CONSOLE

_HEADER = Path(__file__).with_name("nerfacc_compat.h")


@cache
def nerfacc_cuda() -> bool:
    """Build or load nerfacc's extension; False, and a word on why, where that cannot be done.

    nerfacc 0.5.2 compiles itself when it is first used, in one or two minutes, and does not compile with CUDA 13 or
    with PyTorch 2.13 unless a few names are defined for it. They are defined by a header that nvcc is told to include
    first.
    """
    if not torch.cuda.is_available():
        return False
    flags = os.environ.get("NVCC_APPEND_FLAGS")
    os.environ["NVCC_APPEND_FLAGS"] = f"{flags or ''} -include {_HEADER}".strip()
    try:
        from nerfacc.cuda import _backend  # compiles at import

        usable = _backend._C is not None
        reason = "there is no CUDA compiler (nvcc)"
    except Exception as error:  # whatever a compiler, a linker or a half-finished build directory may raise
        usable, reason = False, f"its extension could not be built: {str(error).splitlines()[0]}"
    finally:
        if flags is None:
            del os.environ["NVCC_APPEND_FLAGS"]
        else:
            os.environ["NVCC_APPEND_FLAGS"] = flags
    if not usable:
        CONSOLE.print(
            f"[yellow]nerfacc's CUDA functions are not used: {reason}. Plain PyTorch takes their place.[/yellow]"
        )
    return usable
