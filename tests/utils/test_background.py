"""Work in a thread of its own."""

from __future__ import annotations

from threading import Event, current_thread, get_ident, main_thread

import pytest
import torch

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


@pytest.mark.parametrize(
    ("named", "used"), [("cuda", "cuda:1"), ("cuda:2", "cuda:2"), (torch.device("cuda:0"), "cuda:0")]
)
def test_thread_uses_the_gpu_that_is_named_or_current(
    monkeypatch: pytest.MonkeyPatch, named: torch.device | str, used: str
) -> None:
    current: dict[int, torch.device] = {}
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.update({get_ident(): device}))
    assert current[begin(get_ident, named).result()] == torch.device(used)
