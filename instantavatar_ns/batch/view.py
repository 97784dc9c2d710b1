"""Display of a running batch: a table on a terminal, a line for each event in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from nerfstudio.utils.rich_utils import CONSOLE
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from instantavatar_ns.batch.jobs import Stage
from instantavatar_ns.batch.state import BatchState, SubjectState

_LEAST_ROWS = 5
_LINES_AROUND = 6  # header, borders, the line of counts
_SECONDS_A_LINE = 30.0
_COLORS = {"waiting": "dim", "running": "bold", "finished": "green", "failed": "red"}


class View:
    """Shows a batch; made by `shown`."""

    def __init__(self, state: BatchState, live: Live | None) -> None:
        self._state, self._live = state, live
        self._last = monotonic()

    def update(self) -> None:
        """Draw the table anew; in a log, a line now and then."""
        now = monotonic()
        if self._live is not None:
            self._live.update(drawn(self._state, now, CONSOLE.height))
        elif now - self._last >= _SECONDS_A_LINE:
            running = [subject for subject in self._state.subjects.values() if subject.status == "running"]
            parts = [f"{s.job.name} {s.stage} {progress_text(s)}".rstrip() for s in running]
            self.say("; ".join([counts_text(self._state), *parts]))

    def say(self, text: str, style: str = "") -> None:
        """Print a line, above the table where there is one."""
        self._last = monotonic()
        CONSOLE.print(escape(text), style=style, highlight=False, soft_wrap=True)

    def ended(self, subject: SubjectState, stage: Stage) -> None:
        """Say how a stage ended."""
        name = subject.job.name
        if subject.status == "failed":
            self.say(f"{name}: {stage} failed: {subject.cause}", "red")
            return
        record = subject.records[stage]
        psnr = subject.metric("psnr") if stage == "evaluate" else record.facts.get("psnr")
        shown = f", PSNR {psnr:.1f}" if psnr is not None else ""
        last = ", all finished" if subject.status == "finished" else ""
        self.say(f"{name}: {stage} finished in {record.seconds:.1f} s on {record.place}{shown}{last}")


@contextmanager
def shown(state: BatchState) -> Iterator[View]:
    """Show a batch while the context lasts."""
    if not CONSOLE.is_terminal:
        yield View(state, None)
        return
    with Live(drawn(state, monotonic(), CONSOLE.height), console=CONSOLE, refresh_per_second=4) as live:
        yield View(state, live)


def drawn(state: BatchState, now: float, height: int) -> Group:
    """Return the table, in which those rows stand that are worth most, and a line of counts.

    Args:
        state: The batch.
        now: Seconds of the clock that the subjects' `since` counts on.
        height: Lines of the terminal.
    """
    table = Table("subject", "stage", "where", expand=True)
    table.add_column("progress", ratio=1, no_wrap=True, overflow="ellipsis")
    for name in ("PSNR", "seconds"):
        table.add_column(name, justify="right")
    subjects = list(state.subjects.values())
    for subject in _rows_to_show(subjects, max(height - _LINES_AROUND, _LEAST_ROWS)):
        seconds = subject.seconds + (now - subject.since if subject.status == "running" else 0.0)
        cells = [subject.job.name, subject.stage or subject.status, subject.place]
        cells += [progress_text(subject), psnr_text(subject)]
        cells.append(f"{seconds:.0f}" if seconds else "")
        table.add_row(*map(escape, cells), style=_COLORS[subject.status])
    return Group(table, counts_text(state))


def progress_text(subject: SubjectState) -> str:
    """Return how far the running stage is, or why it failed."""
    if subject.status == "failed":
        return f"failed: {subject.cause}"
    if subject.status == "running" and subject.progress is not None:
        return f"step {subject.progress.step}/{subject.progress.steps}"
    return subject.status if subject.stage is not None else ""


def psnr_text(subject: SubjectState) -> str:
    """Return the PSNR of the held-out frames, or before that of the training's last batch."""
    psnr = subject.metric("psnr")
    if psnr is None and subject.progress is not None:
        psnr = subject.progress.psnr
    if psnr is None and "train" in subject.records:
        psnr = subject.records["train"].facts.get("psnr")
    return "" if psnr is None else f"{psnr:.1f}"


def counts_text(state: BatchState) -> str:
    """Return how many subjects are finished, failed, running and waiting."""
    counts = {status: state.count(status) for status in ("finished", "failed", "running", "waiting")}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return f"{len(state.subjects)} subjects: {told}"


def _rows_to_show(subjects: list[SubjectState], most: int) -> list[SubjectState]:
    """As many subjects as there is place for: running and failed ones first, in the list's order."""
    rank = {"running": 0, "failed": 1, "waiting": 2, "finished": 3}
    chosen = sorted(range(len(subjects)), key=lambda index: rank[subjects[index].status])[:most]
    return [subjects[index] for index in sorted(chosen)]
