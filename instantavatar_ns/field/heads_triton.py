"""Launches the Triton kernels of the density and colour networks (`kernels/field_heads.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from instantavatar_ns.field.hash_encoding_triton import Launch
from instantavatar_ns.kernels.field_heads import backward_kernel, forward_kernel
from instantavatar_ns.kernels.launch import cdiv, launch
from instantavatar_ns.kernels.usable import interpreting

Precision = Literal["half", "float"]


@dataclass(frozen=True)
class HeadLaunch(Launch):
    """Launch of a kernel of the networks."""

    programs: int
    """Of a multiprocessor: as many as fit, each with its own copy of the weights."""
    stages: int
    """Tiles that are loaded or worked on at a time."""


def _pairs() -> str:
    """Products of bfloat16 pairs, where this Triton has them; its interpreter has none."""
    from triton.backends.nvidia.compiler import CUDAOptions

    known = "bf16x3" in CUDAOptions.allowed_dot_input_precisions and not interpreting()
    return "bf16x3" if known else "tf32x3"


# Precision of products on the way forward and on the way back. Half precision alone puts one hidden value in
# 6,000 or more on the wrong side of its ReLU: an error of 2 to 3 % in the gradient. Pairs of bfloat16 bring that below
# 0.5 %.
PRODUCTS: dict[Precision, tuple[str, str]] = {"half": (_pairs(), "half"), "float": ("tf32x3", "tf32x3")}

# Chosen by the compiler's report for compute capability 9.0: the forward kernel takes 144 registers a lane for three
# programs of a multiprocessor; the backward kernel, which holds 9,216 sums besides, takes all 255, spills 88, and has
# 150 kB of shared memory, which others do not offer.
FORWARD = HeadLaunch(64, 4, 3, 2)
BACKWARD: dict[Precision, HeadLaunch] = {"half": HeadLaunch(128, 8, 1, 2), "float": HeadLaunch(32, 4, 1, 1)}
SMALL_BACKWARD = HeadLaunch(64, 8, 1, 1)


class HeadParams(NamedTuple):
    """Both networks."""

    density: Float[Tensor, "density_params"]
    color: Float[Tensor, "color_params"]
    width: int
    inputs: int
    """Of the density network, padded."""


class HeadOutputs(NamedTuple):
    """Outputs of the networks."""

    density: Float[Tensor, "n"]
    """Density after the ReLU, 1/metres."""
    color: Float[Tensor, "n 3"] | None
    """Colour, 0 to 1, if it was asked for ..."""
    features: Float[Tensor, "n 15"] | None
    """... and otherwise what it follows from."""


class HeadGradients(NamedTuple):
    """Gradients with respect to the encoding and the weights of the networks."""

    encoding: Float[Tensor, "features stride"]
    density_params: Float[Tensor, "density_params"]
    color_params: Float[Tensor, "color_params"] | None


def evaluate_heads(
    params: HeadParams,
    encoded: Float[Tensor, "features stride"],
    num_points: int,
    *,
    with_color: bool,
    precision: Precision,
    noise: Float[Tensor, "n"] | None = None,
    total: Int[Tensor, "1"] | None = None,
) -> HeadOutputs:
    """Evaluate the density network and, with `with_color`, the colour network, else the features; zeros beyond `total`.

    Args:
        params: Both networks.
        encoded: Encoding.
        num_points: How many there are.
        with_color: Colour, or the features that it follows from.
        precision: Of the products.
        noise: Added to the raw density.
        total: Number of filled rows, on the device.
    """
    make = encoded.new_empty if total is None else encoded.new_zeros
    density = make((num_points,))
    color = make((num_points, 3)) if with_color else None
    features = None if with_color else make((num_points, 15))
    launch(
        forward_kernel,
        (_programs(FORWARD, encoded),),
        encoded,
        params.density,
        params.color,
        noise,
        density,
        color,
        features,
        total,
        num_points,
        encoded.shape[1],
        **_constants(params, encoded, FORWARD, precision),
    )
    return HeadOutputs(density, color, features)


def heads_gradient(
    params: HeadParams,
    encoded: Float[Tensor, "features stride"],
    outputs: HeadOutputs,
    gradient: HeadOutputs,
    *,
    precision: Precision,
    total: Int[Tensor, "1"] | None = None,
) -> HeadGradients:
    """Gradients with respect to the encoding and the networks; the encoding's is not written beyond `total`.

    Args:
        params: Both networks.
        encoded: What `evaluate_heads` was given ...
        outputs: ... and what it returned.
        gradient: Gradient with respect to that, contiguous; None for colour or features that have none.
        precision: Of the products.
        total: Number of filled rows, on the device.
    """
    num_points = len(outputs.density)
    encoded_gradient = torch.empty_like(encoded)
    density_gradient = torch.zeros_like(params.density)
    with_color = gradient.color is not None
    color_gradient = torch.zeros_like(params.color) if with_color else None
    size = BACKWARD[precision]
    if precision == "half" and not _has_large_shared_memory(encoded.device):
        size = SMALL_BACKWARD
    launch(
        backward_kernel,
        (_programs(size, encoded),),
        encoded,
        params.density,
        params.color,
        outputs.density,
        outputs.color if with_color else None,
        gradient.density,
        gradient.color,
        gradient.features,
        encoded_gradient,
        density_gradient,
        color_gradient,
        total,
        num_points,
        encoded.shape[1],
        **_constants(params, encoded, size, precision),
        BACKWARD=PRODUCTS[precision][1],
    )
    return HeadGradients(encoded_gradient, density_gradient, color_gradient)


def _constants(params: HeadParams, encoded: Tensor, size: HeadLaunch, precision: Precision) -> dict[str, Any]:
    return {
        "FEATURES": len(encoded),
        "INPUTS": params.inputs,
        "WIDTH": params.width,
        "FORWARD": PRODUCTS[precision][0],
        "BLOCK": size.block,
        "num_warps": size.warps,
        "num_stages": size.stages,
    }


def _programs(size: HeadLaunch, encoded: Tensor) -> int:
    """As many as run at once, so that weights are loaded once; fewer for fewer tiles."""
    return min(cdiv(encoded.shape[1], size.block), size.programs * _multiprocessors(encoded.device))


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@cache
def _has_large_shared_memory(device: torch.device) -> bool:
    """True where a program can have 227 kB of shared memory, as on data-centre GPUs from Hopper on."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] in (9, 10)
