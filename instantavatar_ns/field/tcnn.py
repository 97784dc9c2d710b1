"""Use of tiny-cuda-nn where it is installed, on the parameters of our own modules."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import nn


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


def share_parameters(native: nn.Module, params: nn.Parameter) -> tuple[nn.Module]:
    """Make a tiny-cuda-nn module use our parameters, which are laid out as its own are.

    Args:
        native: Module of tiny-cuda-nn.
        params: Parameters of our own module.

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
