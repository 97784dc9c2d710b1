"""Work in a thread of its own."""

from __future__ import annotations

from threading import Event, current_thread, main_thread

import pytest

from instantavatar_ns.utils.background import begin
from instantavatar_ns.utils.errors import InputError


def test_work_goes_on_beside_others_and_ends_its_thread() -> None:
    may_end = Event()
    begun = begin(lambda: may_end.wait(60) and current_thread(), "cpu")
    assert not begun.done()
    may_end.set()
    thread = begun.result()
    assert thread is not main_thread()
    thread.join(60)
    assert not thread.is_alive()


def test_error_is_raised_where_the_result_is_asked_for() -> None:
    error = InputError("place", "expected this, found that", "Do this")

    def fail() -> None:
        raise error

    begun = begin(fail, "cpu")
    with pytest.raises(InputError) as raised:
        begun.result()
    assert raised.value is error
