"""A training step's forward and backward pass as one CUDA graph.

nerfstudio's trainer asks its pipeline for losses and calls `backward` on their sum. Here the losses are those of a
replayed graph that has the gradients already; `backward` hands them out.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.utils.cuda_graph import AutoCudaGraph

Batch = dict[str, Tensor]


class StepResult(NamedTuple):
    """What nerfstudio's trainer wants of a step: the model's outputs, the losses to sum, and metrics."""

    outputs: dict[str, Tensor]
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class TrainingStep:
    """Training steps of a model, whose kernels are captured when two steps in succession have the same.

    Args:
        model: In training; nothing between its kernels may block the host (`Renderer.supports_cuda_graphs`).
    """

    def __init__(self, model: InstantAvatarModel) -> None:
        self._model, self._forward = model, _Forward(model)
        self._params = {name: value for name, value in self._forward.named_parameters() if value.numel()}
        self._graph: AutoCudaGraph[tuple[StepResult, tuple[Tensor | None, ...]]] = AutoCudaGraph(model.device)

    @property
    def is_captured(self) -> bool:
        """Whether the last step was the replay of a CUDA graph."""
        return self._graph.is_captured

    def __call__(self, rays: RayBundle, batch: Batch) -> StepResult:
        """Outputs, losses and metrics of rays that are the same tensors in each step, with other values."""
        settings = (id(rays), self._model.step_settings(len(rays)))
        result, gradients = self._graph(settings, partial(self._forward_backward, rays, batch))
        losses = _Replayed.apply(tuple(result.losses.values()), gradients, *self._params.values())
        return result._replace(losses=dict(zip(result.losses, losses, strict=True)))

    def _forward_backward(self, rays: RayBundle, batch: Batch) -> tuple[StepResult, tuple[Tensor | None, ...]]:
        # Autograd remembers on which stream a parameter was used first, and would synchronise with it: hence aliases.
        aliases = {name: value.detach().requires_grad_() for name, value in self._params.items()}
        result = functional_call(self._forward, aliases, (rays, batch))
        total = torch.stack([*result.losses.values()]).sum()
        return result, torch.autograd.grad(total, [*aliases.values()], allow_unused=True)


class _Forward(nn.Module):
    """What nerfstudio's pipeline makes of a batch."""

    def __init__(self, model: InstantAvatarModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, rays: RayBundle, batch: Batch) -> StepResult:
        outputs = self.model(rays)
        metrics = self.model.get_metrics_dict(outputs, batch)
        return StepResult(outputs, self.model.get_loss_dict(outputs, batch, metrics), metrics)


class _Replayed(torch.autograd.Function):
    """Losses whose sum has gradients that are known."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, losses: tuple[Tensor, ...], gradients: tuple[Tensor | None, ...], *params: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.gradients = gradients
        return tuple(loss.detach() for loss in losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *_: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # Copies: gradients may be summed over several steps, and the next one overwrites these.
        return None, None, *(None if gradient is None else gradient.clone() for gradient in ctx.gradients)
