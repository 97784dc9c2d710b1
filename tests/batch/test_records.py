"""Markers of a subject's stages: what is kept, what is removed, and what is refused."""

from dataclasses import replace

import pytest
from filelock import FileLock

from instantavatar_ns.batch.jobs import Job
from instantavatar_ns.batch.records import SubjectFolder
from instantavatar_ns.utils.errors import InputError


@pytest.fixture
def job(tmp_path):
    return Job("anna", tmp_path, "method", flags={"train": {"steps": 3}, "export": {"max-faces": 9}})


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


def do(output, job, stage, files):
    """A stage from its beginning to its end; returns whether it went on."""
    folder = SubjectFolder(output, job)
    goes_on = folder.begin(stage)
    for name in files:
        path = folder.run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(stage)
    folder.finish(stage, {"psnr": 20.0}, 1.5, "node GPU 0", 10.0)
    return goes_on


def do_all(output, job):
    do(output, job, "train", ["config.yml", "nerfstudio_models/step-000000002.ckpt"])
    do(output, job, "evaluate", ["eval/heldout.json"])
    do(output, job, "export", ["export/avatar.glb"])
    return SubjectFolder(output, job)


def files(folder):
    return sorted(str(path.relative_to(folder.folder)) for path in folder.folder.rglob("*") if path.is_file())


def test_finished_stages_are_known_again_with_what_they_said(output, job):
    assert SubjectFolder(output, job).remaining() == ["train", "evaluate", "export"]
    do(output, job, "train", ["config.yml"])
    again = SubjectFolder(output, job)
    assert again.remaining() == ["evaluate", "export"]
    record = again.finished("train")
    assert record is not None and record.facts == {"psnr": 20.0} and record.place == "node GPU 0"
    again.check()


def test_other_options_are_refused_and_named(output, job):
    do_all(output, job)
    with pytest.raises(InputError, match=r"anna: .*'export'.*\(max-faces: 9 before, 10 now\).*--overwrite"):
        SubjectFolder(output, replace(job, flags=job.flags | {"export": {"max-faces": 10}})).check()
    with pytest.raises(InputError, match=r"'train'.*\(steps: 3 before, 4 now\)"):
        SubjectFolder(output, replace(job, flags=job.flags | {"train": {"steps": 4}})).check()
    with pytest.raises(InputError, match=r"'train'.*\(method: method before, other now\)"):
        SubjectFolder(output, replace(job, method="other")).check()
    SubjectFolder(output, replace(job, method="other")).check(overwrite=True)


def test_another_training_takes_all_that_was_made_of_it_along(output, job):
    old = do_all(output, job)
    changed = SubjectFolder(output, replace(job, method="other"))
    assert changed.remaining() == ["train", "evaluate", "export"]
    assert not changed.begin("train")
    assert files(old) == ["stages/train.started.json"]


def test_another_export_leaves_the_training(output, job):
    do_all(output, job)
    changed = SubjectFolder(output, replace(job, flags=job.flags | {"export": {"max-faces": 10}}))
    assert changed.remaining() == ["export"]
    changed.begin("export")
    assert not (changed.run / "export").exists() and changed.remaining() == ["export"]
    assert (changed.run / "eval" / "heldout.json").is_file() and changed.finished("train")


def test_a_killed_training_goes_on_and_a_killed_evaluation_begins_anew(output, job):
    folder = SubjectFolder(output, job)
    assert not folder.begin("train"), "there is nothing yet"
    checkpoint = folder.checkpoints / "step-000000001.ckpt"
    partial = folder.run / ".checkpoint-partial" / "step-000000002.ckpt"
    for path in (checkpoint, partial, folder.run / ".partial-config.yml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert SubjectFolder(output, job).begin("train")
    assert sorted(path.name for path in folder.run.rglob("*")) == ["nerfstudio_models", checkpoint.name]
    folder.finish("train", {}, 1.0, "", 0.0)

    folder.begin("evaluate")
    (folder.run / "eval").mkdir()
    assert not SubjectFolder(output, job).begin("evaluate")
    assert not (folder.run / "eval").exists()


def test_a_killed_training_of_other_options_is_not_gone_on_with(output, job):
    folder = SubjectFolder(output, job)
    folder.begin("train")
    folder.checkpoints.mkdir(parents=True)
    other = SubjectFolder(output, replace(job, flags={"train": {"steps": 4}}))
    with pytest.raises(InputError, match="steps: 3 before, 4 now"):
        other.check()
    assert not other.begin("train") and not folder.checkpoints.exists()


def test_what_failed_leaves_nothing_but_checkpoints(output, job):
    folder = SubjectFolder(output, job)
    folder.begin("train")
    (folder.run / "config.yml").parent.mkdir(parents=True)
    folder.give_up("train")
    assert files(folder) == [] and not folder.run.parent.exists()
    folder.begin("train")
    folder.checkpoints.mkdir(parents=True)
    (folder.checkpoints / "step-000000001.ckpt").touch()
    folder.give_up("train")
    assert folder.begin("train")


def test_files_of_somebody_else_are_refused(output, job):
    folder = SubjectFolder(output, job)
    with folder.locked(0):
        folder.check()  # a batch that was killed right at the beginning
    (folder.folder / "notes.txt").touch()
    with pytest.raises(InputError, match=r"anna: .*found other files"):
        folder.check(overwrite=True)


def test_one_process_at_a_time(output, job):
    folder = SubjectFolder(output, job)
    folder.folder.mkdir(parents=True)
    with FileLock(folder.folder / ".lock"):
        with pytest.raises(InputError, match="found one at work"), folder.locked(0.05):
            pass
    with folder.locked(0):
        pass


def test_a_damaged_marker_is_named(output, job):
    do_all(output, job)
    folder = SubjectFolder(output, job)
    (folder.folder / "stages" / "export.json").write_text("{")
    with pytest.raises(InputError, match=r"export.json: .*Delete it"):
        folder.remaining()
