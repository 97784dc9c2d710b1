"""Runs that are killed: between checkpoints, and while one is written."""

import os
import signal
import subprocess
import time

import pytest
import torch
from nerfstudio.engine.trainer import TrainerConfig
from torch import nn

from instantavatar_ns.config import instant_avatar, instant_avatar_lite, instant_avatar_wild
from instantavatar_ns.trainer import AvatarTrainer
from tests.commands import command, environment, run_command, run_folder, training_arguments

EVERY = 20


def test_killed_run_resumes_from_its_checkpoint(demo_subject, tmp_path):
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
    result = run_command("ns-train", *training_arguments(demo_subject, tmp_path, 3, *more), folder=tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    assert "Done loading Nerfstudio checkpoint" in result.stdout
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
    config = TrainerConfig(
        _target=AvatarTrainer, method_name="method", output_dir=tmp_path, data=tmp_path, timestamp="t"
    )
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
    assert method.config._target is AvatarTrainer
