"""Warnings that newer PyTorch gives of nerfstudio 1.1.5: they are true, change no result, and hide what matters.

Each is named by the beginning of its text, its category and its module; all others are shown.
"""

from __future__ import annotations

import re
import warnings

_ACTIVATIONS = "nerfstudio.field_components.activations"
HARMLESS: tuple[tuple[str, type[Warning], str], ...] = (
    # Old names of functions that are still there.
    ("`torch.cuda.amp.custom_fwd(args...)` is deprecated", FutureWarning, _ACTIVATIONS),
    ("`torch.cuda.amp.custom_bwd(args...)` is deprecated", FutureWarning, _ACTIVATIONS),
    ("`torch.cuda.amp.GradScaler(args...)` is deprecated", FutureWarning, "nerfstudio.engine.trainer"),
    # Lists of one tensor for each axis, as indices; five lines of code, each of which warns once a process or more.
    ("Using a non-tuple sequence for multidimensional indexing", UserWarning, "nerfstudio.cameras.cameras"),
    # Losses are logged as numbers without being detached before.
    ("Converting a tensor with requires_grad=True to a scalar", UserWarning, "nerfstudio.utils.writer"),
)


def ignore() -> None:
    """Ignore them from now on, in this process."""
    for text, category, module in HARMLESS:
        warnings.filterwarnings("ignore", re.escape(text), category, rf"{re.escape(module)}\Z")


def as_variable() -> str:
    """The same for the variable PYTHONWARNINGS of a process: nerfstudio's commands import some modules before ours."""
    return ",".join(f"ignore:{text}:{category.__name__}:{module}" for text, category, module in HARMLESS)
