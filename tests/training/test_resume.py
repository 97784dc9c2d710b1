"""Runs that go on: after a kill between checkpoints or while one is written, and what is said where they cannot."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import training
from instantavatar_ns.config import instant_avatar, instant_avatar_lite, instant_avatar_wild
from instantavatar_ns.trainer import AvatarTrainer, AvatarTrainerConfig
from instantavatar_ns.training.checkpoints import checkpoint_to_resume
from instantavatar_ns.utils.errors import InputError
from tests.commands import command, environment, run_folder, training_arguments
from tests.tiny import FIELD

EVERY = 20


def test_killed_run_resumes_from_its_checkpoint(demo_subject, tmp_path, capsys):
    checkpoints = run_folder(tmp_path) / "nerfstudio_models"
    more = ["--steps-per-save", str(EVERY)]
    endless = training_arguments(demo_subject, tmp_path, 100_000, *more)
    with (tmp_path / "log").open("wb") as log:
        killed = subprocess.Popen(
            [command("ns-train"), *endless], cwd=tmp_path, env=environment(tmp_path), stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + 300
            while not list(checkpoints.glob("*.ckpt")):
                assert killed.poll() is None, (tmp_path / "log").read_text()[-4000:]
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            os.kill(killed.pid, signal.SIGKILL)
            killed.wait()
    newest = max(checkpoints.glob("*.ckpt"))
    state = torch.load(newest, map_location="cpu", weights_only=True)
    assert state["step"] > 0 and state["step"] % EVERY == 0

    more += ["--load-dir", str(checkpoints)]
    training.train_here(training_arguments(demo_subject, tmp_path, 3, *more))
    said = capsys.readouterr().out
    assert "Done loading Nerfstudio checkpoint" in said and "Aligning" not in said, "the checkpoint's poses are aligned"
    (last,) = checkpoints.iterdir()
    resumed = torch.load(last, map_location="cpu", weights_only=True)
    assert resumed["step"] == state["step"] + 3
    # Adam counts its steps, and what it had learnt is still there.
    field = resumed["optimizers"]["field"]
    assert {int(entry["step"]) for entry in field["state"].values()} == {state["step"] + 1 + 3}
    table = max((name for name in state["pipeline"]), key=lambda name: state["pipeline"][name].numel())
    before, after = state["pipeline"][table].float(), resumed["pipeline"][table].float()
    assert 0 < (after - before).norm() < 0.5 * before.norm()


class _FakePipeline(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))


class _NoState:
    optimizers, schedulers = {}, {}

    def state_dict(self):
        return {}


@pytest.fixture
def trainer(tmp_path):
    """A trainer with something to save, but no data."""
    config = AvatarTrainerConfig(method_name="method", output_dir=tmp_path, data=tmp_path, timestamp="t")
    config.machine.device_type = "cpu"
    trainer = config.setup()
    trainer.pipeline, trainer.optimizers, trainer.grad_scaler = _FakePipeline(), _NoState(), _NoState()
    return trainer


def steps_to_load(trainer):
    """Steps that nerfstudio finds in the folder, the newest last; as its trainer and its eval_utils list them."""
    names = os.listdir(trainer.checkpoint_dir)
    return sorted(int(name[name.find("-") + 1 : name.find(".")]) for name in names)


def test_kill_while_saving_leaves_the_checkpoint_before(trainer, monkeypatch):
    trainer.save_checkpoint(20)
    whole = torch.save

    def killed(content, path):
        whole(content, path)
        os.truncate(path, os.path.getsize(path) // 2)
        raise SystemExit

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(SystemExit):
        trainer.save_checkpoint(40)
    assert steps_to_load(trainer) == [20]
    assert torch.load(trainer.checkpoint_dir / "step-000000020.ckpt")["step"] == 20

    monkeypatch.setattr(torch, "save", whole)
    trainer.save_checkpoint(60)
    assert steps_to_load(trainer) == [60]
    assert sorted(path.name for path in trainer.base_dir.iterdir()) == ["nerfstudio_models"]


def test_all_checkpoints_are_kept_on_request(trainer):
    trainer.config.save_only_latest_checkpoint = False
    for step in (20, 40):
        trainer.save_checkpoint(step)
    assert steps_to_load(trainer) == [20, 40]


@pytest.mark.parametrize(
    "method",
    [instant_avatar, instant_avatar_lite, instant_avatar_wild],
    ids=lambda method: method.config.method_name,
)
def test_methods_save_this_way(method):
    assert method.config._target is AvatarTrainer and isinstance(method.config, AvatarTrainerConfig)


@pytest.fixture
def run(trainer):
    """Folder of a run with checkpoints of steps 20 and 40."""
    trainer.config.save_only_latest_checkpoint = False
    for step in (20, 40):
        trainer.save_checkpoint(step)
    return trainer.base_dir


def found(**options):
    """Step of the checkpoint that these options ask for."""
    path, content = checkpoint_to_resume(AvatarTrainerConfig(**options))
    assert path.name == f"step-{content['step']:09d}.ckpt"
    return content["step"]


def test_run_or_its_checkpoints_or_one_of_them_can_be_named(run):
    assert found(load_dir=run) == found(load_dir=run / "nerfstudio_models") == 40
    assert found(load_dir=run, load_step=20) == 20
    assert found(load_checkpoint=run / "nerfstudio_models" / "step-000000020.ckpt") == 20
    assert checkpoint_to_resume(AvatarTrainerConfig()) is None


@pytest.mark.parametrize("length", [0, 1000])
def test_damaged_checkpoint_is_passed_over_with_a_word(run, length, capsys):
    newest = run / "nerfstudio_models" / "step-000000040.ckpt"
    os.truncate(newest, length)
    assert found(load_dir=run) == 20
    said = "".join(capsys.readouterr().out.split())
    assert "step-000000040.ckpt" in said and f"damagedoneof{length}bytes" in said and "step-000000020.ckpt" in said
    for options in ({"load_dir": run, "load_step": 40}, {"load_checkpoint": newest}):
        with pytest.raises(InputError, match=rf"000040.ckpt: .*damaged one of {length} bytes"):
            found(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_dir": "nowhere"}, "nowhere: .*no such folder"),
        ({"load_dir": "method/t/nerfstudio_models/step-000000020.ckpt"}, "found a file. .*--load-checkpoint"),
        ({"load_dir": "empty"}, r"empty: .*with checkpoints .*found none\. Train first"),
        ({"load_dir": "method"}, r"found none\. Give the run itself: .*method/t\."),
        ({"load_dir": "method/t", "load_step": 30}, "step 30, found those of 40, 20"),
        ({"load_checkpoint": "step-000000001.ckpt"}, "no such file"),
        ({"load_checkpoint": "config.yml"}, "config.yml: .*something else"),
        ({"load_checkpoint": "weights.pt"}, "weights.pt: .*something else"),
    ],
)
def test_what_cannot_be_resumed_is_named_and_nothing_is_written(run, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(run.parents[1])
    os.mkdir("empty")
    (run.parents[1] / "config.yml").write_text("method_name: instant-avatar")
    torch.save({"weights": torch.zeros(3)}, "weights.pt")
    config = copy.deepcopy(instant_avatar_lite.config)
    config.output_dir, config.experiment_name, config.timestamp = tmp_path / "new", "person", "run"
    for name, value in options.items():
        setattr(config, name, type(run)(value) if isinstance(value, str) else value)
    with pytest.raises(InputError, match=message):
        config.save_config()
    assert not (tmp_path / "new").exists()


def test_options_of_another_size_are_named_before_the_runs_configuration_is_replaced(trainer, tmp_path):
    config = copy.deepcopy(instant_avatar_lite.config)
    config.output_dir, config.experiment_name, config.timestamp = tmp_path, "person", "run"
    config.save_config()
    saved = config.get_base_dir() / "config.yml"
    trainer.checkpoint_dir = config.get_checkpoint_dir()
    trainer.save_checkpoint(20)
    before = saved.read_text()
    config.load_dir = config.get_base_dir()
    config.pipeline.model.hash_levels, config.pipeline.model.skinning_resolution = 9, (64, 64, 32)
    with pytest.raises(InputError, match=r"hash_levels 12 \(now 9\).*--pipeline.model.skinning-resolution 64 64 16"):
        config.save_config()
    assert saved.read_text() == before
    config.pipeline.model.hash_levels, config.pipeline.model.skinning_resolution = 12, (64, 64, 16)
    config.max_num_iterations = 7
    config.save_config()
    assert "max_num_iterations: 7" in saved.read_text()


@pytest.fixture
def resuming(trainer, tmp_path):
    """Configuration of a run that goes on from a checkpoint of step 20."""
    config = copy.deepcopy(instant_avatar_lite.config)
    config.output_dir, config.experiment_name, config.timestamp = tmp_path, "person", "run"
    config.save_config()
    trainer.checkpoint_dir = config.get_checkpoint_dir()
    trainer.save_checkpoint(20)
    config.load_dir = config.get_base_dir()
    return config


def test_damaged_configuration_of_the_run_is_told_in_a_sentence(resuming):
    saved = resuming.get_base_dir() / "config.yml"
    saved.write_text("method_name: x\ngarbage: [\n")
    with pytest.raises(InputError, match=r"config\.yml: .*damaged file, unreadable in line 3\. Put the run's") as error:
        resuming.save_config()
    assert "\n" not in str(error.value)
    saved.unlink()
    resuming.save_config()
    assert saved.is_file()


@pytest.mark.parametrize("steps", [0, -5])
def test_no_step_to_go_is_refused(resuming, steps):
    """The option counts the steps still to go, so one below the checkpoint's step is right."""
    resuming.max_num_iterations = steps
    with pytest.raises(InputError, match=rf"--max-num-iterations: .*found {steps}, to go on from .* step 20\. Give"):
        resuming.save_config()
    resuming.max_num_iterations = 3
    resuming.save_config()


def pipeline(data, **options):
    """A small avatar of a folder, before it has learnt anything."""
    config = copy.deepcopy(instant_avatar_lite.config.pipeline)
    config.datamanager.data = data
    config.model = replace(config.model, **{**FIELD, "skinning_resolution": (32, 32, 8), **options})
    return config.setup(device="cpu", test_mode="test")


def leave_a_frame_out(subject):
    split = json.loads((subject / "subject.json").read_text())
    (subject / "subject.json").write_text(json.dumps(split | {"train": [0, 7]}))
    path = subject / "poses" / "anim_nerf_train.npz"
    values = dict(np.load(path))
    np.savez(path, **{name: value if name == "betas" else value[:7] for name, value in values.items()})
    return {}, "subject: expected the 8 training frames .* found 7"


def gain_weight(subject):
    for path in subject.glob("poses/*.npz"):
        values = dict(np.load(path))
        np.savez(path, **(values | {"betas": values["betas"] + 2}))
    return {}, "subject: expected the body .* another shape"


CHANGES = [
    leave_a_frame_out,
    gain_weight,
    lambda subject: ({"refine_poses": False}, "refine-poses: expected False.*Add --pipeline.model.refine-poses True"),
    lambda subject: ({"hash_levels": 5}, r"checkpoint with field.*\(now .*--pipeline.model.hash-levels"),
]


@pytest.fixture(scope="module")
def untrained(demo_subject):
    """State of a model of the demo subject."""
    return pipeline(demo_subject).state_dict()


@pytest.mark.parametrize("change", CHANGES, ids=["frames", "body", "refine-poses", "hash-levels"])
def test_checkpoint_of_other_data_or_options_is_refused(demo_subject, untrained, tmp_path, change):
    subject = shutil.copytree(demo_subject, tmp_path / "subject")
    options, message = change(subject)
    other = pipeline(subject, **options)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(InputError, match=message):
        other.load_pipeline(untrained, 3)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_checkpoint_of_the_same_data_loads(demo_subject, untrained):
    other = pipeline(demo_subject, step_size=0.05)
    other.load_pipeline(untrained, 3)
    assert all(torch.equal(value, untrained[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 1000), os.remove], ids=["truncated", "none"])
def test_stock_evaluation_of_a_damaged_checkpoint_ends_with_the_message_alone(run, capsys, damage):
    from nerfstudio.utils.eval_utils import eval_load_checkpoint

    for path in (run / "nerfstudio_models").iterdir():
        damage(path)
    try:
        eval_load_checkpoint(AvatarTrainerConfig(load_dir=run / "nerfstudio_models"), _FakePipeline())
    except (RuntimeError, OSError, IndexError):
        sys.excepthook(*sys.exc_info())
    said = capsys.readouterr().err
    assert "Traceback" not in said and said.startswith(f"\nError: {run / 'nerfstudio_models'}")


def test_error_of_one_of_several_processes_is_shown_alone(capsys):
    text = "Traceback ...\n  File ...\ninstantavatar_ns.utils.errors.InputError: cameras.npz: expected this. Do that.\n"
    error = torch.multiprocessing.ProcessRaisedException(text, 0, 1)
    sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == "\nError: cameras.npz: expected this. Do that.\n"
