"""Kills in the middle of a batch: everything is finished after it, nothing twice, and nothing half-written is left."""

import json
import os
import signal
import subprocess
import time

import psutil
import pytest
import torch

from tests.batch.subjects import batch_command, batch_environment, write_batch

pytest.importorskip("ray")
NAMES = ["anna", "bert", "carl"]
STEPS, EVERY = 300, 20


@pytest.fixture
def batch(demo_subject, tmp_path):
    """Starts the same batch again and again; ends what it started."""
    save = {"steps-per-save": EVERY}
    people = write_batch(tmp_path, demo_subject, NAMES, STEPS, train=save, skip=["export"])
    log = (tmp_path / "log").open("ab")
    started = []

    def start():
        line = batch_command(people, "--output", tmp_path / "out")
        process = subprocess.Popen(line, cwd=tmp_path, env=batch_environment(tmp_path), stdout=log, stderr=log)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)
    log.close()


def wait_for(process, folder, condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, (folder / "log").read_text()[-4000:]
        assert time.monotonic() < deadline, (folder / "log").read_text()[-4000:]
        time.sleep(0.02)


def marker(folder, name, stage="train"):
    path = folder / "out" / name / "stages" / f"{stage}.json"
    return json.loads(path.read_text()) if path.exists() else None


def half_trained(folder):
    """Subjects that have a checkpoint and are not finished."""
    return [name for name in NAMES if list((folder / "out" / name).rglob("*.ckpt")) and marker(folder, name) is None]


def worker_of(driver, folder, name):
    """Process id of the worker that holds a subject's lock."""
    lock = str(folder / "out" / name / ".lock")
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if any(file.path == lock for file in process.open_files()):
                return process.pid
        except psutil.Error:
            continue
    return None


def check_finished(folder):
    """All is there, by one training each, and nothing else."""
    out = folder / "out"
    for name in NAMES:
        for stage in ("train", "evaluate"):
            assert marker(folder, name, stage) is not None, (folder / "log").read_text()[-4000:]
        (checkpoint,) = (out / name).rglob("*.ckpt")
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        assert state["step"] == STEPS - 1
        began = marker(folder, name)["facts"].get("resumed at", 0)
        adam = state["optimizers"]["field"]["state"].values()
        assert {int(entry["step"]) for entry in adam} == {STEPS}, f"trained on from step {began}"
    left = [path for path in out.rglob("*") if "partial" in path.name or path.name.endswith(".started.json")]
    assert left == []
    assert (out / "summary.csv").read_text().count("finished") == len(NAMES)


@pytest.mark.nightly
def test_batch_goes_on_after_a_kill_of_a_worker(batch, tmp_path):
    driver = batch()
    wait_for(driver, tmp_path, lambda: half_trained(tmp_path))
    victim = half_trained(tmp_path)[0]
    pid = worker_of(driver, tmp_path, victim)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert driver.wait(timeout=900) == 0, (tmp_path / "log").read_text()[-4000:]
    check_finished(tmp_path)
    assert f"{victim}: the worker died at train" in (tmp_path / "log").read_text()
    assert marker(tmp_path, victim)["facts"]["resumed at"] > 0
    assert "resumed at" not in {key for name in NAMES if name != victim for key in marker(tmp_path, name)["facts"]}


@pytest.mark.nightly
@pytest.mark.parametrize("whole_machine", [False, True], ids=["driver", "machine"])
def test_batch_goes_on_after_a_kill_of_its_driver(batch, tmp_path, whole_machine):
    driver = batch()
    wait_for(driver, tmp_path, lambda: any(marker(tmp_path, name) for name in NAMES) and half_trained(tmp_path))
    others = psutil.Process(driver.pid).children(recursive=True) if whole_machine else []
    os.kill(driver.pid, signal.SIGKILL)
    for process in others:
        process.kill()
    driver.wait()
    finished = {name: marker(tmp_path, name) for name in NAMES if marker(tmp_path, name)}

    again = batch()  # while workers of the first may still be at work
    assert again.wait(timeout=900) == 0, (tmp_path / "log").read_text()[-4000:]
    check_finished(tmp_path)
    for name, record in finished.items():
        assert marker(tmp_path, name) == record, "trained again"
    assert "of an earlier run are finished and kept" in (tmp_path / "log").read_text()
