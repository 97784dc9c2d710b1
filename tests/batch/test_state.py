"""The order of stages, deaths of workers, and what is shown and written about it."""

import csv
import io
import re
import sys

import pytest
from PIL import Image
from rich.console import Console

from instantavatar_ns.batch.jobs import Job
from instantavatar_ns.batch.records import SubjectFolder
from instantavatar_ns.batch.state import BatchState
from instantavatar_ns.batch.summary import write_summary
from instantavatar_ns.batch.view import drawn
from instantavatar_ns.batch.work import Outcome, Progress, carry_out

NAMES = ["anna", "b & <b>", "carl"]


@pytest.fixture
def jobs(tmp_path):
    return [Job(name, tmp_path / name, "method", stages=("train", "evaluate")) for name in NAMES]


@pytest.fixture
def state(tmp_path, jobs):
    return BatchState(tmp_path / "out", jobs)


def succeed(state, name, **facts):
    folder = state.subjects[name].folder
    stage = state.subjects[name].stage
    folder.begin(stage)
    return state.end(name, Outcome(folder.finish(stage, facts, 2.0, "node GPU 1", 0.0)))


def take(state):
    job, stage = state.next_task()
    state.start(job.name, "node GPU 1", 0.0)
    return job.name, stage


def test_subjects_that_are_furthest_come_first(state):
    assert [take(state), take(state)] == [("anna", "train"), ("b & <b>", "train")]
    succeed(state, "b & <b>")
    assert take(state) == ("b & <b>", "evaluate")
    assert take(state) == ("carl", "train")
    assert state.next_task() is None and not state.done


def test_a_failure_stays_with_its_subject(state):
    for _ in NAMES:
        take(state)
    state.end("anna", Outcome(None, "no masks"))
    for name in NAMES[1:]:
        succeed(state, name)
        take(state)
        succeed(state, name)
    assert state.done and [subject.job.name for subject in state.failed] == ["anna"]
    assert (state.count("finished"), state.count("failed")) == (2, 1)


def test_a_stage_is_done_again_when_its_worker_dies_but_not_for_ever(state):
    for _ in range(3):
        assert take(state) == ("anna", "train")
        state.lose("anna", "killed")
    assert state.subjects["anna"].status == "failed"
    assert state.subjects["anna"].cause == "3 workers died at it, the last one by: killed"


def test_deaths_are_counted_for_each_stage(state):
    for stage in ("train", "evaluate"):
        for _ in range(2):
            assert take(state) == ("anna", stage)
            state.lose("anna", "killed")
        take(state)
        succeed(state, "anna")
    assert state.subjects["anna"].status == "finished"


def test_another_batch_goes_on_where_this_one_is(state, jobs):
    take(state)
    succeed(state, "anna")
    again = BatchState(state.output, jobs)
    assert again.subjects["anna"].reused == ("train",) and again.next_task() == (jobs[0], "evaluate")
    # What was evaluated before it was trained anew is of no use.
    again.subjects["anna"].folder.remove("train")
    assert BatchState(state.output, jobs).subjects["anna"].reused == ()


def test_late_progress_is_left_out(state):
    take(state)
    state.report("anna", "train", Progress(3, 10, 17.5))
    state.report("anna", "evaluate", Progress(9, 10))
    state.report("carl", "train", Progress(9, 10))
    assert state.subjects["anna"].progress == Progress(3, 10, 17.5) and state.subjects["carl"].progress is None


def rendered(state, height):
    console = Console(width=160, height=height, file=io.StringIO())
    console.print(drawn(state, 5.0, height))
    return console.file.getvalue()


def test_table_shows_what_runs_where(state):
    take(state)
    state.report("anna", "train", Progress(300, 800, 24.06))
    take(state)
    state.end("b & <b>", Outcome(None, "masks [missing]"))
    text = rendered(state, 40)
    (anna,) = [line for line in text.splitlines() if "anna" in line]
    assert [cell.strip() for cell in re.split("[│┃]", anna)[1:-1]] == [
        *("anna", "train", "node GPU 1", "step 300/800", "24.1", "5")
    ]
    assert "failed: masks [missing]" in text and "3 subjects: 1 failed, 1 running, 1 waiting" in text


def test_table_fits_the_terminal(tmp_path):
    jobs = [Job(f"person{index}", tmp_path, "method", stages=("train",)) for index in range(50)]
    state = BatchState(tmp_path, jobs)
    state.start("person40", "node", 0.0)
    text = rendered(state, 24)
    assert len(text.splitlines()) <= 24 and "person40" in text and "50 subjects" in text


def test_summary_has_everything_and_escapes_names(state):
    for _ in NAMES:
        take(state)
    succeed(state, "b & <b>", psnr=20.0)
    take(state)
    Image.new("RGB", (8, 4)).save(state.subjects["b & <b>"].folder.picture)
    succeed(state, "b & <b>", heldout={"psnr": 27.5, "ssim": 0.9}, novel={"psnr": 25.25})
    state.end("anna", Outcome(None, "expected <masks>, found none"))
    page = write_summary(state).read_text()
    (_, second, _) = rows = list(csv.DictReader((state.output / "summary.csv").open()))
    assert [row["state"] for row in rows] == ["failed", "finished", "running"]
    assert rows[0]["failed stage"] == "train" and rows[0]["cause"] == "expected <masks>, found none"
    assert (second["heldout psnr"], second["novel psnr"], second["heldout lpips"]) == ("27.5", "25.25", "")
    assert second["seconds"] == "4.0" and second["where"] == "node GPU 1"
    assert "b &amp; &lt;b&gt;" in page and "<b>" not in page and "<masks>" not in page
    assert page.count("data:image/jpeg;base64,") == 1 and "http" not in page
    assert "novel PSNR" in page and "LPIPS" not in page, "columns without values are left out"


def test_carry_out_does_a_stage_once_and_logs_it(tmp_path, jobs, capsys):
    done = []

    kept = []

    def do(task):
        kept.append(sys.stdout)  # as a logger does
        print("at work")
        done.append(task.stage)
        task.report(Progress(1, 2))
        return {"psnr": 30.0}

    reports = []
    for _ in range(2):
        outcome = carry_out(tmp_path, jobs[0], "train", do, reports.append, "here")
        assert outcome.record is not None and outcome.record.facts == {"psnr": 30.0} and outcome.record.place == "here"
    assert done == ["train"] and reports == [Progress(1, 2)]
    assert (tmp_path / "anna" / "train.log").read_text() == capsys.readouterr().out == "at work\n"
    kept[0].write("later")
    assert capsys.readouterr().out == "later"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (RuntimeError("CUDA out of memory. Tried 2 GiB"), "Give fewer avatars at once with --per-gpu"),
        (SystemExit(2), "SystemExit: 2"),
        (KeyError(), "KeyError"),
    ],
)
def test_errors_become_one_line_and_a_traceback_in_the_log(tmp_path, jobs, error, cause):
    def do(task):
        task.folder.run.mkdir(parents=True)
        raise error

    outcome = carry_out(tmp_path, jobs[0], "train", do, print, "here")
    assert outcome.record is None and cause in outcome.cause and "\n" not in outcome.cause
    assert "Traceback" in (tmp_path / "anna" / "train.log").read_text()
    assert not SubjectFolder(tmp_path, jobs[0]).run.exists()
