"""The end of a command by Ctrl-C: one line in place of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import PurePath
from types import TracebackType

STOPPED = 130
"""Exit code of a command that was stopped, as shells have it."""


def say_stopped() -> None:
    """Print the line, under what a terminal shows for the keys."""
    print("\nStopped.", file=sys.stderr)


def is_ours(command: Sequence[str]) -> bool:
    """Return True for a command line of `instant-avatar`, as `sys.argv` has it; others end by Ctrl-C as ever."""
    return PurePath("".join(command[:1])).stem == "instant-avatar"


def hide_traceback() -> None:
    """Let Ctrl-C end the process with that line where nobody catches it, such as during imports."""
    show_other_error = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            say_stopped()
        else:
            show_other_error(kind, error, traceback)

    sys.excepthook = show
