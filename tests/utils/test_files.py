"""Files and folders that appear whole, or not at all."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from instantavatar_ns.utils.files import delete_partial, write_files, written_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end_and_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.npz"
    for number in (1, 2):
        with written_whole(path) as partial:
            np.savez(partial, number=number)  # NumPy adds an ending to names without
            assert not path.exists() or np.load(path)["number"] == number - 1
        assert np.load(path)["number"] == number and names(path.parent) == ["a.npz"]


def test_a_folder_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.mkdir()
    with written_whole(path) as partial:
        (partial / "images").mkdir(parents=True)
        assert not any(path.iterdir())
    assert names(path) == ["images"] and names(tmp_path) == ["frames"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_what_there_was(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), written_whole(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "mine.txt").write_text("mine")
    with pytest.raises(OSError), written_whole(path) as partial:
        partial.mkdir()
    assert names(path) == ["mine.txt"] and names(tmp_path) == ["a"]


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    context = written_whole(path)
    (context.__enter__() / "half").mkdir(parents=True)  # and never left: the process is gone
    with written_whole(path) as partial:
        assert not partial.exists()
        partial.write_text("whole")
    assert path.read_text() == "whole" and names(tmp_path) == ["a"]
    (written_whole(path).__enter__()).write_text("half")
    delete_partial(tmp_path)
    assert names(tmp_path) == ["a"]


def test_there_is_one_way_to_give_a_file_its_name(repo_root: Path) -> None:
    """Every other module leaves it to utils/files.py, so kills leave the same behind everywhere."""
    package = repo_root / "instantavatar_ns"
    calls = re.compile(r"\bos\.(replace|rename)\(|\bshutil\.move\(|\.(rename|replace)\([^,\n]*\)$", re.M)
    found = [path.relative_to(package).as_posix() for path in package.rglob("*.py") if calls.search(path.read_text())]
    assert found == ["utils/files.py"]


def test_files_that_belong_together_appear_together(tmp_path: Path) -> None:
    write_files(tmp_path / "out", {"a.png": b"1", "b.obj": b"2"})
    assert names(tmp_path / "out") == ["a.png", "b.obj"]
    with pytest.raises(OSError, match="too long"):
        write_files(tmp_path / "out", {"a" * 300: b"3", "a.png": b"3", "b.obj": b"3"})
    assert names(tmp_path / "out") == ["a.png", "b.obj"]
    assert (tmp_path / "out" / "a.png").read_bytes() == b"1" and (tmp_path / "out" / "b.obj").read_bytes() == b"2"
