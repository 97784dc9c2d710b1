"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import Progress

_SECONDS_A_LINE = 5.0


@contextmanager
def shown_progress(what: str) -> Iterator[Callable[[float], None]]:
    """Show the progress of some work while the context lasts.

    Args:
        what: Name of the work, such as "Aligning the poses".

    Yields:
        A function to be called, often, with the share of the work that is done.
    """
    if CONSOLE.is_terminal:
        with Progress(console=CONSOLE, transient=True) as progress:
            task = progress.add_task(what, total=1.0)
            yield lambda share: progress.update(task, completed=share)
        return
    start = last = monotonic()

    def line(share: float) -> None:
        nonlocal last
        now = monotonic()
        if share > 0 and now - last >= _SECONDS_A_LINE:
            last, passed = now, now - start
            CONSOLE.print(f"{what}: {share:.0%} after {passed:.0f} s, about {passed / share - passed:.0f} s left")

    yield line
