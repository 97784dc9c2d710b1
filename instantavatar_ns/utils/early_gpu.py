"""CUDA's context of a command, made while modules are being imported: the driver needs none of them.

The context is the one that PyTorch uses, too: the first device's primary one, of which a process has one.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePath

_HELP = ("-h", "--help")
OTHERWISE = {
    "train": (*_HELP, "--load-config", "--machine"),
    **dict.fromkeys(("animate", "unseen-views", "export"), _HELP),
}
"""Commands that use the first GPU, and beginnings of flags that may say that they do not."""


def is_wanted(command: Sequence[str]) -> bool:
    """Return True if a command line will use the first GPU, as far as can be told before flags are parsed.

    Args:
        command: The program and its arguments, as `sys.argv`.
    """
    program, *arguments = command or [""]
    otherwise = OTHERWISE.get("".join(arguments[:1]))
    if otherwise is None or PurePath(program).stem != "instant-avatar":
        return False
    return not any(argument.startswith(otherwise) for argument in arguments)


def begin_context() -> threading.Thread:
    """Begin to make the context, in the thread that is returned. Where there is no GPU, or an error, nothing is done:
    PyTorch meets the same error, and the training says what is wrong.
    """
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")  # as PyTorch does; the driver reads it once
    thread = threading.Thread(target=_make_context, name="CUDA's context", daemon=True)
    thread.start()
    return thread


def _make_context() -> None:
    with suppress(OSError):  # no driver
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) == 0:
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(ctypes.c_void_p()), 0)
