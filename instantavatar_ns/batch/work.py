"""One stage of one subject, done in a worker's process: locked, logged, and its result marked as finished."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Any, TextIO

from instantavatar_ns.batch.jobs import Job, Stage
from instantavatar_ns.batch.records import StageRecord, SubjectFolder
from instantavatar_ns.utils.errors import explained

# A worker that outlived its killed driver ends within seconds.
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Progress:
    """Progress of a stage.

    Attributes:
        step: Steps that are done.
        steps: Steps in all.
        psnr: Of the last batch of rays, decibels; None before the first one.
    """

    step: int
    steps: int
    psnr: float | None = None


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Task:
    """Inputs of a stage's work.

    Attributes:
        folder: The subject's folder.
        stage: The stage.
        goes_on: A killed attempt left something to go on from.
        report: Takes progress, now and then.
    """

    folder: SubjectFolder
    stage: Stage
    goes_on: bool
    report: Report


Do = Callable[[Task], dict[str, Any]]
"""Does a task in this process and returns plain facts about the result."""


@dataclass(frozen=True)
class Outcome:
    """A stage's record, or why it failed, in one line."""

    record: StageRecord | None
    cause: str = ""


def carry_out(output: Path, job: Job, stage: Stage, do: Do, report: Report, place: str) -> Outcome:
    """Do a stage unless it is finished; what it prints goes to the subject's folder too, and its errors to the outcome.

    Args:
        output: Folder of the batch.
        job: The subject's job.
        stage: The stage, whose earlier ones are finished.
        do: Does it.
        report: Takes its progress.
        place: Where this is, for the record.
    """
    folder = SubjectFolder(output, job)
    try:
        with folder.locked(_LOCK_SECONDS):
            # A worker of a killed driver may have finished it meanwhile.
            record = folder.finished(stage)
            if record is None:
                goes_on = folder.begin(stage)
                began, start = time(), monotonic()
                try:
                    with _logged(folder.log(stage), keep=goes_on):
                        facts = do(Task(folder, stage, goes_on, report))
                except (Exception, SystemExit):
                    folder.give_up(stage)
                    raise
                record = folder.finish(stage, facts, monotonic() - start, place, began)
            return Outcome(record)
    except (Exception, SystemExit) as error:  # commands end by the latter
        return Outcome(None, cause_of(error))


def cause_of(error: BaseException) -> str:
    """Return why something failed, in one line: a message for users as it is, others after the error's name."""
    known = explained(error)
    if known is not None:
        return " ".join(str(known).split())
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    if "out of memory" in text.lower():
        text = f"{text.rstrip('.')}. Give fewer avatars at once with --per-gpu"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def _logged(path: Path, keep: bool) -> Iterator[None]:
    """Copy what is printed, and the traceback of an error, to a file; the file of an earlier attempt may be kept."""
    with path.open("a" if keep else "w", encoding="utf8", buffering=1) as log:
        with redirect_stdout(_Tee(log, sys.stdout)), redirect_stderr(_Tee(log, sys.stderr)):
            try:
                yield
            except (Exception, SystemExit) as error:
                traceback.print_exc()
                print(f"Error: {cause_of(error)}")
                raise


class _Tee(io.TextIOBase):
    """A text stream that writes to two."""

    def __init__(self, *streams: TextIO) -> None:
        self._streams = streams

    def write(self, text: str) -> int:
        """Write to both; a logger may keep this longer than the log is open."""
        for stream in self._streams:
            if not stream.closed:
                stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush both."""
        for stream in self._streams:
            if not stream.closed:
                stream.flush()

    def isatty(self) -> bool:
        """Never draw for a terminal."""
        return False
