"""Errors caused by a user's input, worded for the user, and shown without a traceback where nobody catches them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType


class InputError(ValueError):
    """A file or option that the user gave cannot be used.

    Args:
        path: The file, folder or option at fault.
        expected: What was expected of it and what was found instead, one sentence without a full stop.
        advice: What the user can do about it, one sentence without a full stop.
    """

    def __init__(self, path: Path | str, expected: str, advice: str) -> None:
        self.path = path
        super().__init__(f"{path}: {expected}. {advice}.")


_show_other_error = sys.excepthook


def _show_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """End a command with the message alone: nerfstudio's frames tell a user nothing about the file at fault."""
    if isinstance(error, InputError):
        print(f"\nError: {error}", file=sys.stderr)
    else:
        _show_other_error(kind, error, traceback)


# nerfstudio's commands import this module with the package's entry points, and catch no error themselves.
sys.excepthook = _show_error
