"""CUDA graphs: kernels that are captured once and launched together. A training step is hundreds of small ones."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")


class CudaGraph(Generic[T]):
    """A function without arguments that always does the same work on the same tensors.

    On a GPU its kernels are captured when the graph is made, and replayed at each call, which returns the same
    tensors with new values. On a CPU, calls call the function. Random numbers are new ones each time.

    Args:
        function: Capturable: the same kernels at fixed addresses, without synchronising.
        device: Where it works.
        generator: One that it draws random numbers from, besides torch's own.
        warm: The function has run before; otherwise it runs once, so that kernels are compiled and libraries started.
    """

    def __init__(
        self,
        function: Callable[[], T],
        device: torch.device,
        generator: torch.Generator | None = None,
        *,
        warm: bool = False,
    ) -> None:
        self._function, self._graph = function, None
        if device.type != "cuda":
            return
        # A capture sees the current device's streams alone, which need not be those that are worked on: of several
        # processes each has a GPU of its own.
        with torch.cuda.device(device):
            stream = _capture_stream(torch.cuda.current_device())
            if not warm:
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    function()
                torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            if generator is not None:
                self._graph.register_generator_state(generator)
            # Other threads may use the device meanwhile, such as those of the viewer.
            with (
                _no_garbage_collection(),
                torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"),
            ):
                self._outputs = function()

    def __call__(self) -> T:
        """Do the work once more."""
        if self._graph is None:
            return self._function()
        self._graph.replay()
        return self._outputs


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep Python from freeing cycles meanwhile: a graph or memory of another model that goes ends a capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@cache
def _capture_stream(device: int) -> torch.cuda.Stream:
    """The stream on which a device's work is captured: one for all, as libraries keep memory for each that they meet.

    PyTorch's own belongs to whichever device was the current one at the first capture.
    """
    return torch.cuda.Stream(device)


def side_by_side(device: torch.device, first: Callable[[], T], *others: Callable[[], Any]) -> tuple[Any, ...]:
    """Return what functions return whose kernels may run at the same time, each on a stream; also where captured.

    For kernels that do not need each other and leave most of the GPU idle. Memory that `others` take and give back is
    taken again by them only: their streams wait for the current one before they begin, and it waits for them at last.

    Args:
        device: Where they work; on a CPU they run one after another.
        first: Runs on the current stream.
        others: Each runs on a stream of its own.
    """
    if device.type != "cuda":
        return first(), *(other() for other in others)
    with torch.cuda.device(device):
        main, streams = torch.cuda.current_stream(), _side_streams(torch.cuda.current_device(), len(others))
        results = []
        for stream, other in zip(streams, others, strict=True):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                results.append(other())
        result = first()
        for stream in streams:
            main.wait_stream(stream)
    return result, *results


@cache
def _side_streams(device: int, count: int) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(count)]


class AutoCudaGraph(Generic[T]):
    """Work that is captured when two calls in succession launch the same kernels on the same tensors.

    A call with settings of its own (a schedule has moved on, buffers have grown) does its work as it is, which also
    compiles kernels and starts libraries.

    Args:
        device: Where it is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._settings: Hashable = None
        self._graph: CudaGraph[T] | None = None

    @property
    def is_captured(self) -> bool:
        """Return True if the last call's work was the replay of a CUDA graph."""
        return self._graph is not None

    def __call__(self, settings: Hashable, function: Callable[[], T]) -> T:
        """Do the work; what is returned may be overwritten by the next call.

        Args:
            settings: What the work depends on besides the values of tensors.
            function: Does it, see `CudaGraph`; with the same settings, the same on the same tensors.
        """
        if settings != self._settings:
            self._settings, self._graph = settings, None
            return function()
        if self._graph is None:
            self._graph = CudaGraph(function, self._device, warm=True)
        return self._graph()
