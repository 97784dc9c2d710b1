"""Runs of a benchmark in several processes."""

import os

import pytest
import torch

from benchmarks.workers import run_jobs, visible_gpus


def double(number: int) -> dict[str, int]:
    if number == 2:
        raise RuntimeError("out of memory")
    return {"double": 2 * number, "process": os.getpid()}


# Each further process imports nerfstudio.
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_every_job_is_run_and_failures_are_told(workers: int) -> None:
    figures = dict(run_jobs(double, [(number,) for number in range(4)], workers, budget=60))
    assert figures.pop((2,)) == {"failed": "RuntimeError: out of memory"}
    assert {job: run["double"] for job, run in figures.items() if run} == {(0,): 0, (1,): 2, (3,): 6}
    processes = {run["process"] for run in figures.values() if run}
    assert (os.getpid() in processes) == (workers == 1) and len(processes) <= workers


def test_no_job_begins_when_the_budget_is_over() -> None:
    assert list(run_jobs(double, [(1,)], 1, budget=-1)) == [((1,), None)]


@pytest.mark.parametrize(
    ("chosen", "count", "expected"),
    [(None, 2, ["0", "1"]), ("3", 1, ["3"]), ("1,GPU-5e", 2, ["1", "GPU-5e"]), (None, 0, [""])],
)
def test_workers_stay_on_the_gpus_that_were_chosen(
    chosen: str | None, count: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert visible_gpus() == expected
