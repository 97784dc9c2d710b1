"""Notices about a user's input, each said once: assumptions, and things that look odd."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape


def notice(path: Path, text: str) -> None:
    """Say something about a file. The same words about the same file are said once a process.

    Data parsers and motions read a file several times: for each split, before and after the run is loaded.

    Args:
        path: The file.
        text: One or more sentences.
    """
    _say_once(path.resolve(), text)


def forget_notices() -> None:
    """Say everything again from now on: a process turns to other input, whose log is another one."""
    _say_once.cache_clear()


@cache
def _say_once(path: Path, text: str) -> None:
    CONSOLE.print(f"[yellow]{escape(f'{path}: {text}')}", highlight=False, soft_wrap=True)
