"""What watches a training: clocks, a trace and a curve, through callbacks of nerfstudio's trainer."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import trace, training

MARKS = 10


@dataclass
class Stopwatch:
    """Mean time of a step, from the end of step `first` to the end of step `last`.

    Attributes:
        milliseconds: A step, once `last` is over.
    """

    first: int
    last: int
    milliseconds: float = float("nan")

    def attach(self, trainer: Any) -> None:
        """Watch a trainer."""
        after(trainer, self._end)

    def _end(self, step: int) -> None:
        if step == self.first:
            training.synchronise()
            self._start = time.perf_counter()
        elif step == self.last:
            training.synchronise()
            self.milliseconds = 1000 * (time.perf_counter() - self._start) / (self.last - self.first)


def mean_milliseconds(watches: list[Stopwatch]) -> float:
    """Mean time of the steps of several stopwatches."""
    steps = [watch.last - watch.first for watch in watches]
    return sum(count * watch.milliseconds for count, watch in zip(steps, watches, strict=True)) / sum(steps)


@dataclass
class Profile:
    """Traces the steps `first` + 1 to `first` + `count`, on a GPU.

    Attributes:
        figures: Of benchmarks/trace.py, once they are over.
        kernels: The busiest, by the same.
    """

    first: int
    count: int
    figures: dict[str, float] = field(default_factory=dict)
    kernels: list[dict[str, Any]] = field(default_factory=list)

    def attach(self, trainer: Any) -> None:
        """Watch a trainer: around its own callbacks."""
        from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

        self._interval = trainer.pipeline.model.config.occupancy_interval
        self._profiler = torch.profiler.profile()
        self._region: Any = None
        before = [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION]
        trainer.callbacks.insert(0, TrainingCallback(before, self._begin_callbacks))
        trainer.callbacks.append(TrainingCallback(before, self._begin_step))
        after(trainer, self._end)

    def _traced(self, step: int) -> bool:
        return self.first < step <= self.first + self.count

    def _mark(self, name: str | None) -> None:
        if self._region is not None:
            self._region.__exit__(None, None, None)
        self._region = None if name is None else torch.profiler.record_function(name)
        if self._region is not None:
            self._region.__enter__()

    def _begin_callbacks(self, step: int) -> None:
        if self._traced(step):
            self._mark(trace.BEFORE)

    def _begin_step(self, step: int) -> None:
        if self._traced(step):
            self._mark(trace.STEP)

    def _end(self, step: int) -> None:
        self._mark(None)
        if step == self.first:
            training.synchronise()
            self._profiler.start()
        elif step == self.first + self.count:
            training.synchronise()
            self._profiler.stop()
            refreshes = sum(traced % self._interval == 0 for traced in range(self.first + 1, step + 1))
            with TemporaryDirectory() as folder:
                path = Path(folder, "trace.json")
                self._profiler.export_chrome_trace(str(path))
                events = json.loads(path.read_text(encoding="utf8"))["traceEvents"]
            self.figures, self.kernels = trace.count_steps(events, refreshes), trace.busiest_kernels(events)


class Curve:
    """Evaluates at ten marks on the way; the clock starts after the first step, and stands meanwhile.

    Attributes:
        points: Per mark: `step` (steps done), `seconds`, and what was evaluated.
    """

    def __init__(self, steps: int, evaluate: Callable[[], dict[str, float]]) -> None:
        self.points: list[dict[str, float]] = []
        self._marks = {max(1, round(steps * mark / MARKS) - 1) for mark in range(1, MARKS + 1)}
        self._evaluate = evaluate
        self._seconds = 0.0

    def attach(self, trainer: Any) -> None:
        """Watch a trainer."""
        after(trainer, self._end)

    def _end(self, step: int) -> None:
        if step == 0 or step in self._marks:
            training.synchronise()
            if step > 0:
                self._seconds += time.perf_counter() - self._start
                with part(f"evaluation after {step + 1} steps and {self._seconds:.2f} s"):
                    self.points.append({"step": step + 1, "seconds": self._seconds, **self._evaluate()})
                    training.synchronise()
            self._start = time.perf_counter()


@contextmanager
def part(name: str) -> Iterator[None]:
    """Say on stderr when a part of the benchmark begins, and how long it took."""
    print(f"[speed] {name} ...", file=sys.stderr, flush=True)
    start = time.monotonic()
    yield
    print(f"[speed] {name}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)


def after(trainer: Any, function: Callable[[int], None]) -> None:
    """Call a function after each training step, and after the model's own callbacks."""
    from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], function))
