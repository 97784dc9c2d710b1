"""A training step's forward and backward pass as one CUDA graph.

nerfstudio's trainer asks its pipeline for losses and calls `backward` on their sum. Here the losses are those of a
replayed graph that has the gradients already; `backward` of their sum hands them out.
"""

from __future__ import annotations

from collections.abc import Callable
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
        self._handed_out: tuple[Tensor | None, ...] = ()
        self._graph: AutoCudaGraph[tuple[StepResult, tuple[Tensor | None, ...]]] = AutoCudaGraph(model.device)

    @property
    def is_captured(self) -> bool:
        """Whether the last step was the replay of a CUDA graph."""
        return self._graph.is_captured

    def __call__(self, rays: RayBundle, batch: Batch) -> StepResult:
        """Outputs, losses and metrics of rays that are the same tensors in each step, with other values."""
        self._take_back()
        settings = (id(rays), self._model.step_settings(len(rays)))
        result, gradients = self._graph(settings, partial(self._forward_backward, rays, batch))
        # One of the losses passes `backward` on: additions of others are not recorded.
        *_, last = result.losses
        hook = torch.zeros((), requires_grad=True)
        losses = {name: loss.detach() for name, loss in result.losses.items()}
        losses[last] = _Replayed.apply(losses[last], hook, partial(self._hand_out, gradients))
        return result._replace(losses=losses)

    def _hand_out(self, gradients: tuple[Tensor | None, ...]) -> None:
        """Make a step's gradients those of the parameters, or add them; no copies, which take as long as a scatter."""
        for parameter, gradient in zip(self._params.values(), gradients, strict=True):
            if gradient is None:
                continue
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.grad.add_(gradient)
        self._handed_out = gradients

    def _take_back(self) -> None:
        """Copy what was handed out where it is still in use: this step will write its own gradients there."""
        for parameter, gradient in zip(self._params.values(), self._handed_out, strict=False):
            if gradient is not None and parameter.grad is gradient:
                parameter.grad = gradient.clone()
        self._handed_out = ()

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
    """A loss whose `backward` hands out gradients that are known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, hook: Tensor, hand_out: Callable[[], None]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.hand_out = hand_out
        return loss.view_as(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *_: Any) -> tuple[None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.hand_out()
        return None, None, None
