"""Parts of a training are found and timed."""

from __future__ import annotations

import time
from functools import reduce
from importlib import import_module
from types import SimpleNamespace

import pytest

from benchmarks.phases import MODULES, Phases


@pytest.mark.parametrize("part", MODULES)
def test_function_of_each_part_is_there(part: str) -> None:
    module, path = MODULES[part]
    assert callable(reduce(getattr, path.split("."), import_module(module)))


def test_first_time_of_a_part_is_noted_and_its_result_returned() -> None:
    owner = SimpleNamespace(work=lambda seconds: time.sleep(seconds) or seconds)
    phases = Phases(time.time() - 10)
    phases.watch("part", owner, "work")
    assert owner.work(0.05) == 0.05 and owner.work(0.0) == 0.0
    begin, end = phases.seconds["part"]
    assert begin >= 10 and end - begin >= 0.04
