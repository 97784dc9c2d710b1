"""The time of a step, read from what a run has logged."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from benchmarks.two_gpus import step_milliseconds


def logged(run: Path, times: dict[int, float]) -> Path:
    """Folder of a run whose losses were logged at some steps, at some seconds."""
    with SummaryWriter(str(run)) as writer:
        for step, seconds in times.items():
            writer.add_scalar("Train Loss", 0.5, step, walltime=seconds)
    return run


def test_slow_start_does_not_count(tmp_path: Path) -> None:
    run = logged(tmp_path, {0: 100.0, 10: 130.0, 20: 130.5, 40: 130.9})
    assert step_milliseconds(run, 11) == pytest.approx(20, rel=1e-3)
    assert step_milliseconds(run, 10) == pytest.approx(30, rel=1e-3)


def test_run_without_logs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected two logs or more from step 30 on, found 1"):
        step_milliseconds(logged(tmp_path, {0: 1.0, 40: 2.0}), 30)
