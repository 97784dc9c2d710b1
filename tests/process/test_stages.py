"""Stages of a folder: finished ones are kept, interrupted ones go on or begin again, changed options are told."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from instantavatar_ns.process import stages
from instantavatar_ns.process.stages import Stage, StagedFolder
from instantavatar_ns.utils.errors import InputError


class Work:
    """Two stages that count how often they ran; the second copies the first one's text."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, {"first": 0, "second": 0}
        self.text, self.stop_second, self.goes_on = "a", False, False

    def stages(self) -> list[Stage]:
        text = {"text": self.text}
        return [
            Stage("first", "First", text, ("first.txt",), lambda progress: self._first()),
            Stage("second", "Second", {}, ("second",), lambda progress: self._second(), self.goes_on),
        ]

    def _first(self) -> dict:
        self.runs["first"] += 1
        (self.folder / "first.txt").write_text(self.text)
        return {"length": len(self.text)}

    def _second(self) -> dict:
        self.runs["second"] += 1
        (self.folder / "second").mkdir(exist_ok=True)
        (self.folder / "second" / f"run{self.runs['second']}").write_text((self.folder / "first.txt").read_text())
        if self.stop_second:
            raise KeyboardInterrupt
        return {}


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "out")


def test_finished_stages_are_kept(work: Work) -> None:
    StagedFolder(work.folder, overwrite=False).run(work.stages())
    again = StagedFolder(work.folder, overwrite=False)
    again.run(work.stages())
    assert work.runs == {"first": 1, "second": 1}
    assert again.facts("first") == {"length": 1}
    assert again.seconds("second") >= 0


@pytest.mark.parametrize("goes_on", [False, True])
def test_interrupted_stage_begins_again_or_goes_on(work: Work, goes_on: bool) -> None:
    work.stop_second, work.goes_on = True, goes_on
    with pytest.raises(KeyboardInterrupt):
        StagedFolder(work.folder, overwrite=False).run(work.stages())
    work.stop_second = False
    StagedFolder(work.folder, overwrite=False).run(work.stages())
    assert work.runs == {"first": 1, "second": 2}
    left = sorted(path.name for path in (work.folder / "second").iterdir())
    assert left == (["run1", "run2"] if goes_on else ["run2"])


def test_other_options_need_overwrite_and_remake_what_follows(work: Work) -> None:
    StagedFolder(work.folder, overwrite=False).run(work.stages())
    work.text = "b"
    with pytest.raises(InputError, match=r"text: a before, b now.*--overwrite"):
        StagedFolder(work.folder, overwrite=False).run(work.stages())
    assert (work.folder / "first.txt").read_text() == "a"
    StagedFolder(work.folder, overwrite=True).run(work.stages())
    assert work.runs == {"first": 2, "second": 2}
    assert [path.read_text() for path in (work.folder / "second").iterdir()] == ["b"]


def test_interrupted_stage_does_not_go_on_with_other_options(work: Work) -> None:
    work.stop_second, work.goes_on = True, True
    with pytest.raises(KeyboardInterrupt):
        StagedFolder(work.folder, overwrite=False).run(work.stages())
    work.stop_second, work.text = False, "b"
    StagedFolder(work.folder, overwrite=True).run(work.stages())
    assert [path.read_text() for path in (work.folder / "second").iterdir()] == ["b"]


@pytest.mark.parametrize("goes_on", [False, True])
def test_results_whose_removal_was_interrupted_are_not_used(
    work: Work, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.goes_on = goes_on
    StagedFolder(work.folder, overwrite=False).run(work.stages())
    work.text = "b"
    with monkeypatch.context() as killed:
        killed.setattr(stages.shutil, "rmtree", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            StagedFolder(work.folder, overwrite=True).run(work.stages())
    StagedFolder(work.folder, overwrite=False).run(work.stages())
    assert {path.name: path.read_text() for path in (work.folder / "second").iterdir()} == {"run2": "b"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_of_others_is_never_written_to(work: Work, overwrite: bool) -> None:
    work.folder.mkdir()
    (work.folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="found other files"):
        StagedFolder(work.folder, overwrite=overwrite)
    assert [path.name for path in work.folder.iterdir()] == ["notes.txt"]


def test_plan_tells_what_will_be_made_again(work: Work) -> None:
    assert StagedFolder(work.folder, overwrite=False).plan(work.stages()) == ["to do", "to do"]
    work.stop_second = True
    with pytest.raises(KeyboardInterrupt):
        StagedFolder(work.folder, overwrite=False).run(work.stages())
    assert StagedFolder(work.folder, overwrite=False).plan(work.stages()) == ["finished", "to do"]
    work.stop_second = False
    StagedFolder(work.folder, overwrite=False).run(work.stages())
    assert StagedFolder(work.folder, overwrite=False).plan(work.stages()) == ["finished", "finished"]
    work.text = "b"
    again = StagedFolder(work.folder, overwrite=True)
    assert again.plan(work.stages()) == ["to do, replaced", "to do, replaced"]
    again.run(work.stages())
    assert work.runs == {"first": 2, "second": 3}
