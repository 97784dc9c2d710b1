"""Stages of a batch in one process, as a worker does them."""

import json

import pytest
from nerfstudio.engine.trainer import TrainerConfig
from PIL import Image

from instantavatar_ns.batch.jobs import Job
from instantavatar_ns.batch.records import SubjectFolder
from instantavatar_ns.batch.work import carry_out
from instantavatar_ns.scripts.batch_stages import _go_on, check_options, do_stage, training_config
from instantavatar_ns.utils.errors import InputError
from tests.batch.subjects import options_of
from tests.commands import SMALL_TRAINING, TINY_TRAINING

TINY = options_of([*SMALL_TRAINING[1:], *TINY_TRAINING])
TINY |= {"pipeline.check-data": "off", "pipeline.model.align-poses": False}


def job_of(data, **changes):
    return Job(**{"name": "person", "data": data, "method": "instant-avatar-lite", **changes})


def test_training_goes_on_from_its_checkpoint(demo_subject, tmp_path):
    job = job_of(demo_subject, flags={"train": TINY | {"max-num-iterations": 6}})
    folder, reports = SubjectFolder(tmp_path, job), []
    # What a worker leaves that was killed after four of six steps.
    killed = job_of(demo_subject, flags={"train": TINY | {"max-num-iterations": 4}})
    assert carry_out(tmp_path, killed, "train", do_stage, reports.append, "").record is not None
    assert reports[-1].step == reports[-1].steps == 4 and reports[-1].psnr > 0
    marker = tmp_path / "person" / "stages" / "train.json"
    marker.with_name("train.started.json").write_text(
        marker.read_text().replace(SubjectFolder(tmp_path, killed).fingerprint("train"), folder.fingerprint("train"))
    )
    marker.unlink()

    outcome = carry_out(tmp_path, job, "train", do_stage, reports.append, "")
    assert outcome.record is not None, outcome.cause
    assert outcome.record.facts["resumed at"] == 4 and reports[-1].step == 6
    assert [path.name for path in folder.checkpoints.iterdir()] == ["step-000000005.ckpt"]
    assert "Done loading" in folder.log("train").read_text()
    # Killed between the last checkpoint and the marker: there is nothing to train.
    marker.rename(marker.with_name("train.started.json"))
    checkpoint = folder.checkpoints / "step-000000005.ckpt"
    before = checkpoint.stat().st_mtime_ns
    assert carry_out(tmp_path, job, "train", do_stage, reports.append, "").record is not None
    assert checkpoint.stat().st_mtime_ns == before


def test_training_begins_anew_where_its_checkpoint_is_damaged(tmp_path, capsys):
    checkpoints = tmp_path / "nerfstudio_models"
    checkpoints.mkdir()
    (checkpoints / "step-000000003.ckpt").touch()
    config = TrainerConfig()
    assert _go_on(config, checkpoints) == 0
    assert config.load_dir is None and not checkpoints.exists() and "begins anew" in capsys.readouterr().out


def test_evaluation_and_export_of_a_run(demo_subject, trained_run, tmp_path):
    flags = {"export": {"voxel-size": 0.02, "max-faces": 1000, "texture-size": 64}, "evaluate": {"sets": ["heldout"]}}
    job = job_of(demo_subject, flags=flags)
    output = trained_run.parents[2]
    folder = SubjectFolder(output, job)
    assert folder.run == trained_run
    for stage in ("evaluate", "export"):
        outcome = carry_out(output, job, stage, do_stage, print, "here")
        assert outcome.record is not None, outcome.cause
    results = json.loads((trained_run / "eval" / "heldout.json").read_text())["results"]
    record = folder.finished("evaluate")
    assert record is not None and record.facts["heldout"]["psnr"] == results["psnr"] > 15
    with Image.open(folder.picture) as picture:
        assert picture.size == (192, 96), "truth and rendering"
    assert (trained_run / "export" / "avatar.glb").is_file()


def test_options_reach_the_training(tmp_path):
    flags = {"train": TINY | {"vis": "wandb", "machine.device-type": "cpu"}, "parse": {"poses": "refined"}}
    config = training_config(job_of(tmp_path, flags=flags), tmp_path / "out" / "person" / "lite" / "run", "cuda")
    assert config.vis == "wandb" and config.machine.device_type == "cpu"
    assert config.pipeline.model.skinning_resolution == (32, 32, 8)
    assert config.pipeline.datamanager.dataparser.poses == "refined" and config.data == tmp_path
    assert config.get_base_dir() == tmp_path / "out" / "person" / "instant-avatar-lite" / "run"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"flags": {"train": {"max-num-iteration": 3}}},
            "person: train: .*--max-num-iteration, 3 Perhaps you meant: --max",
        ),
        ({"flags": {"train": {"max-num-iterations": "x"}}}, r"Error parsing --max-num-iterations: .*'x'\. See"),
        ({"flags": {"evaluate": {"sets": ["held"]}}}, "person: evaluate: .*invalid choice 'held'"),
        ({"flags": {"export": {"output": "x"}}}, "person: expected no output under export"),
        ({"method": "nerfacto"}, "one of instant-avatar, instant-avatar-lite, instant-avatar-wild, found nerfacto"),
        ({"parser": "no-data"}, "person: train: .*no-data"),
    ],
)
def test_wrong_options_are_named_before_anything_is_done(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        check_options(job_of(tmp_path, **changes))
