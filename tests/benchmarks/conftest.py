"""What all tests of benchmarks share."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True)
def no_garbage_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks free a trainer after each run; here there is none, and the tests' own objects are many."""
    monkeypatch.setattr(gc, "collect", lambda: 0)
