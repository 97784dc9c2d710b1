"""What a log shows of a training's steps."""

from __future__ import annotations

import pytest
import torch
from nerfstudio.configs.base_config import LocalWriterConfig
from nerfstudio.utils import writer

from instantavatar_ns.training import step_progress


def test_a_log_gets_lines_with_step_and_psnr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    events: list[dict] = []
    monkeypatch.setattr(step_progress, "monotonic", lambda: now)
    monkeypatch.setattr(writer, "EVENT_WRITERS", [writer.LocalWriter(LocalWriterConfig())])
    monkeypatch.setattr(writer, "EVENT_STORAGE", events)
    with step_progress.shown_steps(10, 14):
        for step in range(10, 14):
            now += 3.0
            psnr = torch.tensor(20.0 + step)
            events[:] = [{"name": "Train Metrics Dict", "event": {"psnr": psnr}, "step": step}]
            writer.EVENT_WRITERS[0].write_stats_log(step)
        writer.EVENT_WRITERS[0].write_stats_log(14)  # as nerfstudio does once more at the end
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines == [
        "Training, PSNR of training pixels 30.0 dB: step 12 of 14 after 6 s, about 6 s left",
        "Training, PSNR of training pixels 32.0 dB: step 14 of 14 after 12 s, about 0 s left",
        "Trained 4 steps in 12.0 s, PSNR of training pixels 33.0 dB",
    ]


class _Noting:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, int]] = []

    def write_scalar(self, name: str, scalar: float, step: int) -> None:
        self.noted.append((str(getattr(name, "value", name)), step))


class _Terminal(writer.LocalWriter):
    """A writer to the terminal that counts the steps it hears of."""

    def __init__(self) -> None:
        super().__init__(LocalWriterConfig())
        self.steps: list[int] = []

    def write_stats_log(self, step: int) -> None:
        self.steps.append(step)


def test_times_are_written_at_logged_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, board = _Terminal(), _Noting()
    monkeypatch.setattr(writer, "EVENT_WRITERS", [terminal, board])
    monkeypatch.setattr(writer, "EVENT_STORAGE", [])
    monkeypatch.setattr(
        writer, "GLOBAL_BUFFER", {"max_iter": 6, "max_buffer_size": 4, "steps_per_log": 3, "events": {}}
    )
    for step in range(6):
        writer.put_time(writer.EventName.ITER_TRAIN_TIME, 0.1, step, update_eta=True)
        writer.put_time(writer.EventName.TRAIN_RAYS_PER_SEC, 4096.0, step)
        if step == 4:
            writer.put_scalar("learning_rate/field", 0.1, step)
        step_progress.write_out_storage()
        assert not writer.EVENT_STORAGE
    times = ["Train Iter (time)", "ETA (time)", "Train Rays / Sec"]
    assert board.noted == [*((name, 0) for name in times), *((name, 3) for name in times), ("learning_rate/field", 4)]
    assert terminal.steps == [0, 1, 2, 3, 4, 5]
