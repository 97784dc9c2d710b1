"""Choice of the renderer: Triton's kernels or PyTorch."""

from __future__ import annotations

from typing import Literal

import torch

from instantavatar_ns.kernels.usable import triton_usable


def choose_renderer(
    wanted: Literal["auto", "triton", "torch"], device: torch.device | str
) -> Literal["triton", "torch"]:
    """Resolve "auto" for a device: Triton's kernels on GPUs that run them, many times as fast as PyTorch's there.

    Args:
        wanted: The user's choice; other than "auto" it is returned as it is.
        device: Device that renders.
    """
    if wanted != "auto":
        return wanted
    return "triton" if torch.device(device).type == "cuda" and triton_usable() else "torch"
