"""A training step as one CUDA graph: forward and backward pass, and the update of the parameters where all is alike.

nerfstudio's trainer asks its pipeline for losses, calls `backward` on their sum and steps its optimizers: more work for
the host than the kernels are for the GPU. `TrainingStep.train` does all of it by one replay. Where something must
happen in between, such as summing gradients of several steps, `TrainingStep` gives losses whose `backward` sets the
gradients that a replay has computed. Several processes exchange gradients between the replay and the update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.optim import Optimizer

from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.utils.cuda_graph import AutoCudaGraph

Batch = dict[str, Tensor]
Exchange = Callable[[Sequence[Tensor], Sequence["Tensor | None"]], "tuple[Tensor | None, ...]"]
"""Gradients of parameters with what other processes found."""


class StepResult(NamedTuple):
    """Result of a step for nerfstudio's trainer: the model's outputs, the losses to sum, and metrics."""

    outputs: dict[str, Tensor]
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class _Step(NamedTuple):
    """A step's result, the sum of its losses, and the gradients of the parameters."""

    result: StepResult
    total: Tensor
    gradients: tuple[Tensor | None, ...]


class TrainingStep:
    """Training steps of a model, whose kernels are captured when two steps in succession have the same.

    Args:
        model: In training.
        exchange: Of gradients with other processes, if there are any.
        captures: Capture kernels; nothing between them may block the host (`Renderer.supports_cuda_graphs`).
    """

    def __init__(self, model: InstantAvatarModel, exchange: Exchange | None = None, *, captures: bool = True) -> None:
        self._model, self._forward, self._exchange = model, _Forward(model), exchange
        self._params = {name: value for name, value in self._forward.named_parameters() if value.numel()}
        self._handed_out: tuple[Tensor | None, ...] = ()
        self._graph: AutoCudaGraph[_Step] | None = AutoCudaGraph(model.device) if captures else None

    @property
    def is_captured(self) -> bool:
        """Return True if the last step was the replay of a CUDA graph."""
        return self._graph is not None and self._graph.is_captured

    def __call__(self, rays: RayBundle, batch: Batch) -> StepResult:
        """Outputs, losses and metrics of rays that are the same tensors in each step, with other values."""
        self._take_back()
        result, _, gradients = self._computed(rays, batch)
        # One of the losses passes `backward` on: additions of others are not recorded.
        *_, last = result.losses
        hook = torch.zeros((), requires_grad=True)
        passed_on = _Replayed.apply(result.losses[last], hook, partial(self._hand_out, gradients))
        return result._replace(losses=result.losses | {last: passed_on})

    def train(self, rays: RayBundle, batch: Batch, update: ParameterUpdate) -> tuple[Tensor, StepResult]:
        """Update the parameters by a whole step; return the sum of the losses, and what it consists of.

        Args:
            rays: The same tensors in each step, with other values.
            batch: What their pixels show, likewise.
            update: Steps of the optimizers of all parameters.
        """
        self._handed_out = ()
        if self._graph is None or self._exchange is not None:
            step = self._updated(self._computed(rays, batch), update)
        else:
            update.take_rates()
            settings = (id(rays), self._model.step_settings(len(rays)), id(update))
            step = self._graph(settings, lambda: self._updated(self._forward_backward(rays, batch), update))
        return step.total, step.result

    def _updated(self, step: _Step, update: ParameterUpdate) -> _Step:
        """Update the parameters by a step's gradients."""
        for parameter, gradient in zip(self._params.values(), step.gradients, strict=True):
            parameter.grad = gradient
        update()
        return step

    def _computed(self, rays: RayBundle, batch: Batch) -> _Step:
        """Forward and backward pass, with the gradients of all processes."""
        compute = partial(self._forward_backward, rays, batch)
        settings = (id(rays), self._model.step_settings(len(rays)))
        step = compute() if self._graph is None else self._graph(settings, compute)
        if self._exchange is None:
            return step
        return step._replace(gradients=self._exchange([*self._params.values()], step.gradients))

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

    def _forward_backward(self, rays: RayBundle, batch: Batch) -> _Step:
        # Autograd remembers on which stream a parameter was used first, and would synchronise with it: hence aliases.
        aliases = {name: value.detach().requires_grad_() for name, value in self._params.items()}
        result = functional_call(self._forward, aliases, (rays, batch))
        total = torch.stack([*result.losses.values()]).sum()
        gradients = torch.autograd.grad(total, [*aliases.values()], allow_unused=True)
        losses = {name: loss.detach() for name, loss in result.losses.items()}
        return _Step(result._replace(losses=losses), total.detach(), gradients)


class ParameterUpdate:
    """Steps of optimizers that may be captured, though their learning rates change.

    Args:
        optimizers: Optimizers; those of nerfstudio's groups.
        device: Where the parameters are.
    """

    def __init__(self, optimizers: Sequence[Optimizer], device: torch.device) -> None:
        self._optimizers, self._device = tuple(optimizers), device
        # Each in memory of its own: kernels are compiled anew for numbers in the middle of 16 bytes.
        self._rates = [torch.zeros((), device=device) for _ in self._groups()]

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def take_rates(self) -> None:
        """Put the learning rates where captured steps read them; called before each step."""
        for group, rate in zip(self._groups(), self._rates, strict=True):
            rate.fill_(group["lr"])

    def __call__(self) -> None:
        """Step the optimizers whose parameters have gradients."""
        is_captured = self._device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        with self.rates_on_device() if is_captured else nullcontext():
            for optimizer in self._optimizers:
                if any(value.grad is not None for group in optimizer.param_groups for value in group["params"]):
                    optimizer.step()

    @contextmanager
    def rates_on_device(self) -> Iterator[None]:
        """Have optimizers read the rates of `take_rates` from the device, when their kernels run."""
        groups, before = self._groups(), [dict(group) for group in self._groups()]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = True
        try:
            yield
        finally:
            for group, values in zip(groups, before, strict=True):
                group.update(values)


class _Forward(nn.Module):
    """Forward pass of nerfstudio's pipeline, as a module."""

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
