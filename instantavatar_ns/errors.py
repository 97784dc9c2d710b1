"""Errors caused by a user's input, worded for the user."""

from __future__ import annotations

from pathlib import Path


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
