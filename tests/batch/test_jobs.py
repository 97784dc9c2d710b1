"""Lists of subjects: what a file may say, and how it is told when it says something else."""

from pathlib import Path

import pytest

from instantavatar_ns.batch.jobs import read_jobs
from instantavatar_ns.utils.errors import InputError

DEFAULTS = {"method": "instant-avatar", "parser": "instant-avatar-data", "steps": None, "motion": None, "skip": []}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name in ("data/anna", "data/bert", "other/anna"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


def read(text, **defaults):
    Path("people.yaml").write_text(text)
    return read_jobs([Path("people.yaml")], DEFAULTS | defaults)


def test_folders_are_subjects_of_their_names(tmp_path):
    jobs = read_jobs([Path("data/anna"), Path("data/bert/")], DEFAULTS)
    assert [(job.name, job.data) for job in jobs] == [
        ("anna", tmp_path / "data/anna"),
        ("bert", tmp_path / "data/bert"),
    ]
    assert {job.stages for job in jobs} == {("train", "evaluate", "export")}
    assert {job.method for job in jobs} == {"instant-avatar"}


def test_subjects_options_go_before_the_files_and_these_before_the_commands():
    anna, bert = read(
        """
        defaults: {steps: 100, train: {steps_per_save: 50, vis: wandb}, export: {max-faces: 900}}
        subjects:
          - data/anna
          - data: data/bert
            name: b
            method: instant-avatar-lite
            steps: 200
            motion: walk
            skip: [evaluate]
            train: {vis: tensorboard, pipeline.model.skinning-resolution: [32, 32, 8], pipeline.model.x: true}
        """,
        steps=7,
        method="instant-avatar-wild",
    )
    assert anna.method == "instant-avatar-wild" and bert.method == "instant-avatar-lite"
    assert bert.name == "b" and bert.stages == ("train", "export", "animate")
    arguments = bert.arguments("train")
    rates = [f"--optimizers.{group}.scheduler.max-steps 200" for group in ("field", "poses")]
    expected = ["--max-num-iterations 200", *rates, "--steps-per-save 50", "--vis tensorboard"]
    expected += ["--pipeline.model.skinning-resolution 32 32 8", "--pipeline.model.x True"]
    assert " ".join(arguments) == " ".join(expected)
    assert bert.arguments("animate") == ["--motion", "walk"] and anna.arguments("animate") == []
    assert anna.flags["export"] == {"max-faces": 900} and anna.flags["train"]["max-num-iterations"] == 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subjects: []", "at least one subject, found none"),
        ("people: [data/anna]", "expected a list of subjects"),
        ("subjects: [data/anna", "expected YAML"),
        ("{subjects: [data/anna], default: {}}", "'default'. Did you mean defaults"),
        ("subjects: [{data: data/anna, step: 3}]", "in subject 1, found 'step'. Did you mean steps"),
        ("subjects: [{name: x}]", "a folder as data of subject 1, found None"),
        ("subjects: [data/anna, 3]", "for subject 2, found 3"),
        ("subjects: [data/carl, data/anna, data/dora]", "no such folder: .*data/carl, .*data/dora"),
        ("subjects: [data/anna, other/anna]", "'anna' for .*data/anna and .*other/anna.*with a name for each"),
        ("subjects: [{data: data/anna, name: ../x}]", "starts with no dot for subject 1"),
        ("subjects: [{data: data/anna, name: a/b}]", "'a/b'"),
        ("subjects: [{data: data/anna, steps: 0}]", "positive number of steps in subject 1, found 0"),
        ("subjects: [{data: data/anna, train: --vis wandb}]", "under train of subject 1, found '--vis wandb'"),
        ("subjects: [{data: data/anna, skip: train}]", "to be skipped in subject 1, found 'train'"),
        ("subjects: [{data: data/anna, animate: {camera: orbit}}]", "motion for the video of subject 1, found none"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(text, message):
    with pytest.raises(InputError, match=f"(people.yaml|subjects): .*{message}"):
        read(text)


def test_a_file_beside_folders_and_a_missing_file():
    with pytest.raises(InputError, match="one YAML file alone"):
        read_jobs([Path("data/anna"), Path("people.yaml")], DEFAULTS)
    with pytest.raises(InputError, match=r"nobody.yml: .*no such file"):
        read_jobs([Path("nobody.yml")], DEFAULTS)
