"""An object's method in another one's place for a while, also one within another such while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_ABSENT = object()


@contextmanager
def replaced(owner: object, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Let an object call another function as its method.

    Args:
        owner: The object; its class stays as it is.
        name: Of the method.
        method: Called without the object.
    """
    before = vars(owner).get(name, _ABSENT)
    setattr(owner, name, method)
    try:
        yield
    finally:
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
