"""Errors caused by a user's input, worded for the user, and shown without a traceback where nobody catches them."""

from __future__ import annotations

import sys
from pathlib import Path
from traceback import walk_tb
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


def _show_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """End a command with the message alone: nerfstudio's frames tell a user nothing about the file at fault."""
    if not isinstance(error, InputError):
        error = _of_checkpoint(traceback) or error
    # What ends one of several processes reaches the first one as the text of its traceback.
    _, of_process, message = str(error).rpartition(_IN_TRACEBACK)
    if isinstance(error, InputError) or of_process:
        print(f"\nError: {message.strip()}", file=sys.stderr)
    else:
        _show_other_error(kind, error, traceback)


def _of_checkpoint(traceback: TracebackType | None) -> InputError | None:
    """Describe why ns-eval, ns-render or ns-viewer could not read a checkpoint; None of other errors.

    nerfstudio's function for all three reads the file itself.
    """
    for frame, _ in walk_tb(traceback):
        if frame.f_code.co_name == "eval_load_checkpoint":
            from instantavatar_ns.training.checkpoints import checkpoint_to_resume, read  # which import this module

            try:
                if "load_path" in frame.f_locals:
                    read(frame.f_locals["load_path"])
                else:
                    checkpoint_to_resume(frame.f_locals["config"])
            except InputError as found:
                return found
    return None


# nerfstudio's commands import this module with the package's entry points, and catch no error themselves.
sys.excepthook = _show_error
