"""A small network without biases, in torch or by tiny-cuda-nn, with one parameter layout."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from instantavatar_ns.field.tcnn import share_parameters, tinycudann

_MULTIPLE = 16  # tiny-cuda-nn pads inputs (with ones) and outputs to it


class MLP(nn.Module):
    """ReLU network with a linear output.

    Its parameters are tiny-cuda-nn's: the weight matrices [outputs, inputs] one after the other, with inputs and
    outputs padded to multiples of 16. Padded inputs are one, so a network whose input is padded has biases in its first
    layer.

    Args:
        num_inputs: Length of the input.
        num_outputs: Length of the output.
        width: Length of the hidden layers.
        hidden_layers: How many there are.
        implementation: "tcnn" or "torch".
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        width: int = 64,
        hidden_layers: int = 1,
        implementation: Literal["tcnn", "torch"] = "torch",
    ) -> None:
        super().__init__()
        self.num_inputs, self.num_outputs = num_inputs, num_outputs
        sizes = [padded(num_inputs), *[width] * hidden_layers, padded(num_outputs)]
        self.shapes = [(outputs, inputs) for inputs, outputs in pairwise(sizes)]
        layers = [torch.empty(shape) for shape in self.shapes]
        for layer in layers:
            nn.init.xavier_uniform_(layer)
        self.params = nn.Parameter(torch.cat([layer.flatten() for layer in layers]))
        self._native = None
        if implementation == "tcnn":
            config = {
                "otype": "FullyFusedMLP" if width in (16, 32, 64, 128) else "CutlassMLP",
                "activation": "ReLU",
                "output_activation": "None",
                "n_neurons": width,
                "n_hidden_layers": hidden_layers,
            }
            native = tinycudann().Network(num_inputs, num_outputs, config)  # pyright: ignore
            self._native = share_parameters(native, self.params)

    def forward(self, inputs: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        """Evaluate the network."""
        if self._native is not None and inputs.is_cuda and len(inputs):  # tiny-cuda-nn refuses empty batches
            return self._native[0](inputs).float()
        hidden = F.pad(inputs, (0, padded(self.num_inputs) - self.num_inputs), value=1.0)
        *first, last = self.layers()
        for layer in first:
            hidden = F.linear(hidden, layer).relu()
        return F.linear(hidden, last[: self.num_outputs])

    def layers(self) -> list[Float[Tensor, "_ _"]]:
        """The matrices in the parameters, [outputs, inputs], padded."""
        flat = self.params.split([math.prod(shape) for shape in self.shapes])
        return [weights.view(shape) for weights, shape in zip(flat, self.shapes, strict=True)]


def padded(size: int) -> int:
    """Length of an input or output with its padding."""
    return -(-size // _MULTIPLE) * _MULTIPLE
