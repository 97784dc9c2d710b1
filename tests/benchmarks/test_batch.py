"""Figures of batches, from batches that are made up."""

import pytest

from benchmarks import batch
from benchmarks.batch import Measured, comparison


def measured(count, seconds, trainings):
    rows = [{"heldout psnr": "28.5"}, {"heldout psnr": ""}][:count] * (count // 2)
    return Measured(seconds, rows, 5.0, {"train": trainings})


def test_several_at_once_are_compared_with_one_after_another():
    several, serial = measured(16, 60.0, []), measured(6, 90.0, [20.0, 8.0, 9.0, 10.0, 9.0, 9.0])
    figures = comparison(several, serial)
    assert several.per_hour == 960 and serial.per_hour == 240
    assert figures == {
        "batch_first_s": 20.0,
        "batch_warm_s": 9.0,
        "batch_stages_s_serial": {"train": 10.83},
        "batch_per_hour_serial": 240.0,
        "batch_sharing_gain": 4.0,
        "batch_psnr": 28.5,
    }


def test_a_batch_that_fails_is_no_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "_COMMAND", ("sh", "-c", "echo no masks; exit 1"))
    with pytest.raises(RuntimeError, match="serial: no masks"):
        batch.run(batch.Options((tmp_path,)), tmp_path, "serial", 1, [""], [])
