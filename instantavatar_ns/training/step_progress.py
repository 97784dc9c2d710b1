"""Progress of a training's steps, in the place of nerfstudio's table: a bar on a terminal, lines in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import torch
from nerfstudio.configs.base_config import LocalWriterConfig
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

_SECONDS_A_LOOK, _SECONDS_A_LINE = 0.25, 5.0
_TIMES = {name.value for name in (writer.EventName.ITER_TRAIN_TIME, writer.EventName.TRAIN_RAYS_PER_SEC)}
_TIMES |= {writer.EventName.ETA, writer.EventName.ETA.value}  # nerfstudio names this one by the enumeration's member


def write_out_storage() -> None:
    """Write nerfstudio's events to all its writers, as its own function does, but times at logged steps only.

    It notes three times at each step, all of them means over several steps. On a GPU the host would spend a good part
    of a step on writing them to TensorBoard.
    """
    events = writer.EVENT_STORAGE
    if not events:
        return
    step = events[0]["step"]
    is_logged = step % writer.GLOBAL_BUFFER["steps_per_log"] == 0
    for one in writer.EVENT_WRITERS:
        if isinstance(one, writer.LocalWriter):
            one.write_stats_log(step)
            continue
        for event in events:
            if is_logged or event["name"] not in _TIMES:
                getattr(one, event["write_type"].value)(event["name"], event["event"], event["step"])
    events.clear()


@contextmanager
def shown_steps(first: int, end: int) -> Iterator[None]:
    """Show steps and their PSNR while the context lasts, where nerfstudio's writer to the terminal is set up.

    Args:
        first: Number of the first step.
        end: Number after the last one.
    """
    places = [place for place, one in enumerate(writer.EVENT_WRITERS) if type(one) is writer.LocalWriter]
    if not places:  # --logging.local-writer.enable False
        yield
        return
    steps = StepProgress(writer.EVENT_WRITERS[places[0]].config, first, end)
    writer.EVENT_WRITERS[places[0]] = steps
    with steps.bar:
        yield
        steps.finish()


class StepProgress(writer.LocalWriter):
    """Writer of nerfstudio's events that shows the step and the PSNR of its pixels, without waiting for the GPU.

    Args:
        config: nerfstudio's, for its base class.
        first: Number of the first step.
        end: Number after the last one.
    """

    def __init__(self, config: LocalWriterConfig, first: int, end: int) -> None:
        super().__init__(config)
        self._first, self._end, self._step = first, end, first
        self._started = self._looked = self._said = monotonic()
        self._psnr: float | None = None
        self._copied: tuple[Tensor, torch.cuda.Event | None] | None = None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=CONSOLE, transient=True, disable=not CONSOLE.is_terminal)
        self._task = self.bar.add_task("Training", total=end - first)

    def write_stats_log(self, step: int) -> None:
        """Show how far training is; called by nerfstudio after each step.

        Args:
            step: Its number.
        """
        self._step = min(step + 1, self._end)  # nerfstudio writes once more at the end
        self._note_psnr()
        now = monotonic()
        if now - self._looked < _SECONDS_A_LOOK:
            return
        self._looked = now
        self.bar.update(self._task, completed=self._step - self._first, description=f"Training{self._psnr_text()}")
        if not CONSOLE.is_terminal and now - self._said >= _SECONDS_A_LINE:
            self._said = now
            passed = now - self._started
            left = passed / (self._step - self._first) * (self._end - self._step)
            CONSOLE.print(
                f"Training{self._psnr_text()}: step {self._step} of {self._end} after {passed:.0f} s, "
                f"about {left:.0f} s left"
            )

    def finish(self) -> None:
        """Say how long training took, and the PSNR of its last pixels that were looked at."""
        self._read()
        seconds = monotonic() - self._started
        CONSOLE.print(f"Trained {self._step - self._first} steps in {seconds:.1f} s{self._psnr_text()}")

    def _psnr_text(self) -> str:
        return "" if self._psnr is None else f", PSNR of training pixels {self._psnr:.1f} dB"

    def _note_psnr(self) -> None:
        """Ask for the step's PSNR, if it has one; it is read when the GPU has brought it."""
        if self._copied is not None:
            _, event = self._copied
            if event is not None and not event.query():
                return
            self._read()
        for event in writer.EVENT_STORAGE:
            values = event["event"]
            if event["name"] == "Train Metrics Dict" and isinstance(values.get("psnr"), Tensor):
                psnr = values["psnr"].detach()
                copy = torch.empty((), dtype=psnr.dtype, pin_memory=psnr.is_cuda)
                copy.copy_(psnr, non_blocking=True)
                arrived = torch.cuda.Event() if psnr.is_cuda else None
                if arrived is not None:
                    arrived.record()
                self._copied = copy, arrived

    def _read(self) -> None:
        if self._copied is None:
            return
        copy, arrived = self._copied
        if arrived is not None:
            arrived.synchronize()  # at once, but at the training's end
        self._psnr, self._copied = float(copy), None
