"""Whether tiny-cuda-nn can be used, and how its modules share our parameters."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Literal

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from torch import nn

Implementation = Literal["auto", "tcnn", "torch"]


@cache
def tinycudann() -> ModuleType | None:
    """The `tinycudann` module, or None where it is not installed or finds no GPU that it was built for."""
    if not torch.cuda.is_available():
        return None
    try:
        import tinycudann as module  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError):  # EnvironmentError: built for another GPU
        return None
    return module


@cache
def choose_implementation(wanted: Implementation) -> Literal["tcnn", "torch"]:
    """Resolve "auto", and say once what was chosen.

    Raises:
        RuntimeError: tiny-cuda-nn is asked for by name and cannot be used.
    """
    if wanted == "tcnn" and tinycudann() is None:
        raise RuntimeError(
            "The field is set to implementation 'tcnn', but tinycudann does not import here or finds no GPU. Install "
            "it (https://github.com/NVlabs/tiny-cuda-nn), or use 'auto' or 'torch': checkpoints are the same for both."
        )
    chosen = "torch" if wanted == "torch" or tinycudann() is None else "tcnn"
    if torch.cuda.is_available():
        CONSOLE.print(f"Canonical field: {'tiny-cuda-nn' if chosen == 'tcnn' else 'plain PyTorch'}")
    return chosen


def share_parameters(native: nn.Module, params: nn.Parameter) -> tuple[nn.Module]:
    """Make a tiny-cuda-nn module use our parameters, which are laid out as its own are.

    Returns:
        The module in a tuple, so that assigning it to a module's attribute does not register its parameters once more.

    Raises:
        RuntimeError: The installed tiny-cuda-nn lays its parameters out otherwise.
    """
    held = native.get_parameter("params").numel()
    if held != params.numel():
        raise RuntimeError(
            f"This tiny-cuda-nn holds {held} parameters where {params.numel()} were expected. "
            "Use --pipeline.model.implementation torch, and please report the version."
        )
    native.register_parameter("params", params)
    return (native,)
