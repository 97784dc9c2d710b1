"""Implementations of the field: tiny-cuda-nn, Triton kernels or plain PyTorch."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from nerfstudio.utils.rich_utils import CONSOLE

from instantavatar_ns.field.tcnn import tinycudann
from instantavatar_ns.kernels.usable import interpreting, triton_usable

Chosen = Literal["tcnn", "triton", "torch"]
Implementation = Literal["auto"] | Chosen

# What "auto" takes the first usable of, the fastest first. Only what has been measured stands here. Kernels are never
# interpreted unless they are asked for by name.
AUTO_ORDER: tuple[Chosen, ...] = ("triton", "tcnn", "torch")

_NAMES = {"tcnn": "tiny-cuda-nn", "triton": "Triton kernels", "torch": "plain PyTorch"}
_NEEDS = {
    "tcnn": "tinycudann does not import here or finds no GPU. Install it (https://github.com/NVlabs/tiny-cuda-nn)",
    "triton": "there is no triton, or no NVIDIA GPU of compute capability 8.0 or later. Install them",
}


def _usable(implementation: Chosen) -> bool:
    if implementation == "tcnn":
        return tinycudann() is not None
    return implementation == "torch" or triton_usable()


@cache
def choose_implementation(wanted: Implementation, *, triton_fits: bool = True) -> Chosen:
    """Resolve "auto", and say once what was chosen.

    Args:
        wanted: What is asked for.
        triton_fits: The Triton kernels work with the networks' sizes; where they do not, "auto" passes them over.

    Raises:
        RuntimeError: An implementation is asked for by name and cannot be used.
    """
    if wanted == "auto":
        no_triton = interpreting() or not triton_fits
        ways: list[Chosen] = [way for way in AUTO_ORDER if not (way == "triton" and no_triton)]
        chosen: Chosen = next(way for way in ways if _usable(way))
    elif _usable(wanted):
        chosen = wanted
    else:
        raise RuntimeError(
            f"The field is set to implementation '{wanted}', but {_NEEDS[wanted]}, or use 'auto' or 'torch': "
            "checkpoints are the same for all."
        )
    if torch.cuda.is_available():
        CONSOLE.print(f"Canonical field: {_NAMES[chosen]}")
    return chosen
