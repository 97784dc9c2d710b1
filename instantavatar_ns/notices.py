"""Remarks to the user about the data, each made once in a process."""

from __future__ import annotations

from functools import cache

from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape


@cache
def say_once(message: str) -> None:
    """Log a remark, unless the same was logged before: nerfstudio parses the data once for each split."""
    CONSOLE.log(escape(message), _stack_offset=2)  # names the caller's line
