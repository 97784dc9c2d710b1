"""Commands that are named as the next ones: a shell reads them as they are meant."""

import shlex
from pathlib import Path

import pytest

from instantavatar_ns.scripts import next_commands

FOLDER = Path("my clips/it's [me] & you")


@pytest.mark.parametrize("gpu", [False, True])
def test_training_is_by_the_method_for_the_machine(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    method = ["instant-avatar"] if gpu else ["instant-avatar-lite", "--machine.device-type", "cpu"]
    assert shlex.split(next_commands.training(FOLDER)) == ["ns-train", *method, "--data", str(FOLDER)]


def test_paths_of_runs_are_quoted() -> None:
    commands = next_commands.of_run(FOLDER / "config.yml")
    assert list(commands) == ["view", "animate", "evaluate", "export"]
    for command in commands.values():
        assert str(FOLDER / "config.yml") in shlex.split(command)
