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
