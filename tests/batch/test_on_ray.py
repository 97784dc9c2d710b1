"""A batch on a local Ray, with real trainings on the CPU."""

import csv
import json
import re
import subprocess
import sys
from time import sleep
from urllib.request import Request, urlopen

import pytest

from instantavatar_ns.batch import on_ray
from instantavatar_ns.utils.errors import InputError
from tests.batch.subjects import batch_command, batch_environment, write_batch


def run(folder, people, *more):
    line = batch_command(people, "--output", folder / "out", *more)
    return subprocess.run(
        line, cwd=folder, env=batch_environment(folder), capture_output=True, text=True, timeout=600, check=False
    )


def rows(folder):
    with (folder / "out" / "summary.csv").open() as file:
        return {row["subject"]: row for row in csv.DictReader(file)}


@pytest.mark.nightly
def test_batch_trains_all_but_the_one_that_fails(demo_subject, tmp_path):
    """Two workers for three subjects, of which one has no masks; a second call has nothing left but that one."""
    pytest.importorskip("ray")
    people = write_batch(tmp_path, demo_subject, ["anna", "broken", "carl"], steps=6, skip=["evaluate", "export"])
    told = run(tmp_path, people)
    assert told.returncode == 1, told.stdout[-4000:] + told.stderr[-4000:]
    found = rows(tmp_path)
    assert [found[name]["state"] for name in ("anna", "broken", "carl")] == ["finished", "failed", "finished"]
    assert "masks: expected masks" in found["broken"]["cause"] and found["broken"]["cause"] in told.stdout
    for name in ("anna", "carl"):
        run_folder = tmp_path / "out" / name / "instant-avatar-lite" / "run"
        (checkpoint,) = run_folder.rglob("*.ckpt")
        assert checkpoint.name == "step-000000005.ckpt" and (run_folder / "config.yml").is_file()
        assert "Training Finished" in (tmp_path / "out" / name / "train.log").read_text()
    assert list((tmp_path / "out" / "broken").rglob("run")) == []
    assert "Traceback" in (tmp_path / "out" / "broken" / "train.log").read_text()


@pytest.mark.nightly
def test_everything_of_a_batch(demo_subject, tmp_path):
    """All stages; then again with other options, which are refused, and made again on request."""
    pytest.importorskip("ray")
    exported = {"voxel-size": 0.02, "max-faces": 1000, "texture-size": 64}
    options = {"motion": "walk", "animate": {"size": 32, "end-frame": 3}, "export": exported}
    people = write_batch(tmp_path, demo_subject, ["anna", "b & <b>"], steps=300, **options)
    told = run(tmp_path, people)
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr[-4000:]
    for row in rows(tmp_path).values():
        assert float(row["heldout psnr"]) > 10 and float(row["novel psnr"]) > 10
        for kind in ("mesh", "video"):
            assert (tmp_path / row[kind]).is_file()
    page = (tmp_path / "out" / "summary.html").read_text()
    assert page.count("data:image/jpeg") == 2 and "b &amp; &lt;b&gt;" in page
    again = run(tmp_path, people)
    assert again.returncode == 0 and "8 stages of an earlier run are finished" in again.stdout

    people.write_text(people.read_text().replace("max-faces: 1000", "max-faces: 800"))
    refused = run(tmp_path, people)
    assert refused.returncode == 1 and "max-faces: 1000 before, 800 now" in refused.stderr
    trained = (tmp_path / "out" / "anna" / "stages" / "train.json").read_text()
    assert run(tmp_path, people, "--overwrite").returncode == 0
    assert (tmp_path / "out" / "anna" / "stages" / "train.json").read_text() == trained, "only exported again"


@pytest.mark.nightly
def test_dashboard_shows_stages_and_their_logs(demo_subject, tmp_path):
    """While a subject is trained: the page, the stage by its name, and what it has printed so far."""
    pytest.importorskip("ray.dashboard.optional_deps", reason='pip install "ray[default]"', exc_type=ImportError)
    people = write_batch(tmp_path, demo_subject, ["anna"], steps=400, skip=["evaluate", "export"])
    line = batch_command(people, "--output", tmp_path / "out", "--dashboard")
    variables = batch_environment(tmp_path) | {"HOME": str(tmp_path), "COLUMNS": "200"}
    batch = subprocess.Popen(line, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True)
    try:
        assert batch.stdout is not None
        address = next(found[0] for told in batch.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", told)))
        token = tmp_path / ".ray" / "auth_token"
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}

        def get(path):
            with urlopen(Request(address + path, headers=headers), timeout=60) as answer:
                return answer.read().decode(errors="replace")

        assert "<title>Ray Dashboard</title>" in get("/")
        log, names = "", set()
        while "Training, PSNR" not in log and batch.poll() is None:
            sleep(1)
            tasks = json.loads(get("/api/v0/tasks?detail=1"))["data"]["result"]["result"]
            names |= {task["name"] for task in tasks}
            for task in tasks:
                if (task["name"], task["state"]) == ("anna: train", "RUNNING"):
                    log = get(f"/api/v0/logs/file?actor_id={task['actor_id']}&suffix=out&lines=50")
        assert "Training, PSNR" in log, names
        assert not any("_Board" in name for name in names), "nothing but what workers do"
    finally:
        batch.terminate()
        batch.communicate(timeout=120)


def test_missing_ray_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray, .*not installed.*pip install instantavatar-ns\[batch\]"):
        with on_ray.connected(None, dashboard=False):
            pass


def test_dashboard_names_what_it_needs(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setitem(sys.modules, "ray.dashboard.optional_deps", None)
    with pytest.raises(InputError, match=r'--dashboard: .*pip install "ray\[default\]"'):
        with on_ray.connected(None, dashboard=True):
            pass


@pytest.mark.parametrize(
    ("address", "attempts", "message"),
    [("auto", 1, r"--address auto: .*\(nobody there\).*ray start --head"), (None, 3, "ray: .*failed 3 times")],
)
def test_a_cluster_that_does_not_answer_is_named(monkeypatch, address, attempts, message):
    ray = pytest.importorskip("ray")
    addresses = []

    def init(address, **_):
        addresses.append(address)
        raise ConnectionError("nobody\nthere")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(InputError, match=message):
        with on_ray.connected(address, dashboard=False):
            pass
    assert addresses == [address or "local"] * attempts


def test_why_a_worker_died_is_told_in_a_few_words():
    report = "The actor is dead because its worker process has died. Worker exit type: {} Worker exit detail: ..."
    assert "out of memory; give fewer" in on_ray._cause_of_death(Exception(report.format("NODE_OUT_OF_MEMORY")))
    assert "killed or out of memory" in on_ray._cause_of_death(Exception(report.format("SYSTEM_ERROR")))
    other = on_ray._cause_of_death(Exception("The actor died because its node has died.\nNode Id: 3"))
    assert other == "The actor died because its node has died"
