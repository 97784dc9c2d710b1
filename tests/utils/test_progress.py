"""Progress of long work in logs."""

from __future__ import annotations

import pytest

from instantavatar_ns.utils import progress


def test_a_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    with progress.shown_progress("Aligning the poses") as show:
        for share in (0.0, 0.1, 0.2, 0.3, 0.4):
            show(share)
            now += 3.0
    assert capsys.readouterr().out.splitlines() == [
        "Aligning the poses: 20% after 6 s, about 24 s left",
        "Aligning the poses: 40% after 12 s, about 18 s left",
    ]
