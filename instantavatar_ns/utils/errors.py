"""Errors caused by a user's input, worded for the user, and shown without a traceback where nobody catches them."""

from __future__ import annotations

import sys
from collections.abc import Callable
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
_IN_TRACEBACK = f"{InputError.__module__}.{InputError.__name__}: "
Explanation = Callable[[TracebackType | None], InputError | None]
_explanations: list[Explanation] = []


def explain_with(explanation: Explanation) -> Explanation:
    """Register a function that finds the user's input at fault for errors that other packages raise.

    Args:
        explanation: Takes the traceback of an error that ends a command and returns what to show in its place, or None
            if it knows no better.

    Returns:
        The function itself, so that this serves as a decorator.
    """
    _explanations.append(explanation)
    return explanation


def explained(error: BaseException) -> InputError | None:
    """The message for users that an error is, or that explains it; None of one that nobody explains."""
    if isinstance(error, InputError):
        return error
    return next(filter(None, (explanation(error.__traceback__) for explanation in _explanations)), None)


def _show_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """End a command with the message alone: nerfstudio's frames tell a user nothing about the file at fault."""
    error = explained(error.with_traceback(traceback)) or error
    # What ends one of several processes reaches the first one as the text of its traceback.
    _, of_process, message = str(error).rpartition(_IN_TRACEBACK)
    if isinstance(error, InputError) or of_process:
        print(f"\nError: {message.strip()}", file=sys.stderr)
    else:
        _show_other_error(kind, error, traceback)


# nerfstudio's commands import this module with the package's entry points, and catch no error themselves.
sys.excepthook = _show_error
