"""The benchmark of the viewer: servers that fail, and figures that there are already."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import animate
from benchmarks.animate import Animate

HEAD = {"date": "2020-01-02", "device": "abacus", "commit": "c1", "command": "python two", "torch": "2"}


@pytest.fixture
def port() -> int:
    """A port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answering(port: int) -> list[str]:
    """Arguments of Python for a server that says one word."""
    code = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); print('hello'); time.sleep(60)"
    return ["-c", code]


def test_server_is_ended_and_its_output_is_kept(tmp_path: Path, port: int, capfd: pytest.CaptureFixture[str]) -> None:
    with animate.served(answering(port), port, tmp_path / "log", 30):
        assert animate._answers(port)
    assert not animate._answers(port)
    assert (tmp_path / "log").read_text() == "hello\n"
    assert "hello" not in "".join(capfd.readouterr()), "nothing has gone wrong"


def test_failure_shows_what_the_server_is_at(tmp_path: Path, port: int, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(TimeoutError, match="no image"),
        animate.served(answering(port), port, tmp_path / "log", 30),
    ):
        raise TimeoutError("no image")
    shown = capfd.readouterr().err
    assert "hello" in shown and "most recent call first" in shown and 'File "<string>", line 1' in shown
    assert not animate._answers(port)


def test_server_that_ends_or_is_silent_is_told(tmp_path: Path, port: int, capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    failing = ["-c", "print('what I did'); raise SystemExit(3)"]
    with pytest.raises(ChildProcessError, match="code 3"), animate.served(failing, port, tmp_path / "log", 60):
        pass
    assert time.monotonic() - start < 30 and "what I did" in capfd.readouterr().err
    silent = ["-c", "import time; time.sleep(60)"]
    with pytest.raises(TimeoutError, match=f"port {port} after 1 s"), animate.served(silent, port, tmp_path / "log", 1):
        pass


def test_figures_of_the_same_commit_and_device_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "animate.json"
    assert animate._kept(path, HEAD) == HEAD
    path.write_text(json.dumps(HEAD | {"date": "2020-01-01", "command": "python one", "export_s": 3.0}))
    kept = animate._kept(path, HEAD)
    assert kept == HEAD | {"export_s": 3.0, "command": "python one; python two"}
    path.write_text(json.dumps(kept))
    assert animate._kept(path, HEAD) == kept, "a command is named once"
    for name in ("commit", "device", "torch"):
        assert animate._kept(path, HEAD | {name: "other"}) == HEAD | {name: "other"}


def test_frames_that_show_the_whole_person_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three images one shows a whole person, one a person at the border, and one nobody."""

    def write(command: animate.animate.Animate) -> Path:
        assert command.output is not None
        command.output.mkdir()
        for index, rows in enumerate((slice(5, 25), slice(5, 30), slice(0, 0))):
            image = np.zeros((30, 20, 4), np.uint8)
            image[rows, 8:12] = 255
            Image.fromarray(image).save(command.output / f"{index}.png")
        return command.output

    monkeypatch.setattr(animate.animate.Animate, "main", write)
    monkeypatch.setattr(animate, "FILMS", [("walk", "orbit"), ("dance", "static")])
    assert Animate()._film(tmp_path / "config.yml") == {"frames": 6, "whole_frames": 2}


@pytest.mark.parametrize("given", [{}, {"subject": Path("a"), "load_config": Path("b")}])
def test_either_a_subject_or_a_run_is_asked_for(given: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["animate.py"])
    with pytest.raises(SystemExit, match="--load-config"):
        Animate(**given).main()
