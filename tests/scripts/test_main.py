"""The `instant-avatar` command: which command it runs, and what it imports for it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from instantavatar_ns.scripts import main
from instantavatar_ns.utils import interrupts
from tests.commands import run_here

# All methods, their viewer and PyTorch's compiler: seconds of imports each.
NOT_FOR_A_RUN = ("nerfstudio.configs.method_configs", "nerfstudio.viewer.viewer", "torch._inductor", "sympy")


def test_every_command_is_there() -> None:
    for name in main.COMMANDS:
        assert callable(main.command(name).main), name


def test_commands_of_a_run_import_no_other_method_and_no_viewer(trained_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained_run, tmp_path / "person" / "instant-avatar-lite" / "run")
    of_run = ["--load-config", f"{run / 'config.yml'}"]
    mesh = ["--format", "ply", "--voxel-size", "0.04", "--max-faces", "500", "--output", f"{tmp_path / 'a.ply'}"]
    film = ["--motion", "walk", "--size", "24", "--end-frame", "2", "--output", f"{tmp_path / 'a'}"]
    output, (after_export, after_film) = run_here(
        tmp_path, ("instant-avatar", ["export", *of_run, *mesh]), ("instant-avatar", ["animate", *of_run, *film])
    )
    assert (tmp_path / "a.ply").is_file(), output
    assert list((tmp_path / "a").glob("*.png")), output
    for imported in (after_export, after_film):
        assert not imported.intersection(NOT_FOR_A_RUN)


def test_an_unknown_command_is_told_with_those_there_are(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["instant-avatar", "exprot"])
    with pytest.raises(SystemExit):
        main.entrypoint()
    said = "".join(capsys.readouterr())
    assert "exprot" in said
    assert "export" in said


def test_a_stopped_command_ends_with_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sys.argv", ["instant-avatar", "check", "folder"])
    monkeypatch.setattr(main, "command", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\nStopped.\n"


def test_imports_that_are_stopped_end_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shown = Mock()
    monkeypatch.setattr("sys.excepthook", shown)
    interrupts.hide_traceback()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    sys.excepthook(ValueError, ValueError(), None)
    assert [call.args[0] for call in shown.call_args_list] == [ValueError]
    assert capsys.readouterr().err == "\nStopped.\n"
    assert interrupts.is_ours(["bin/instant-avatar", "import"])
    assert not interrupts.is_ours(["bin/ns-train", "instant-avatar"])
