"""Stages of a long work in a folder: each is finished or absent, and one that is finished is not done again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from instantavatar_ns.process.frames import write_text
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.progress import shown_progress

_RECORD = Path("process") / "stages.json"


@dataclass(frozen=True)
class Stage:
    """A part of the work.

    Attributes:
        name: One word.
        words: For its progress, such as "Making the masks".
        settings: All that its result follows from, beside the stages before it; plain values.
        results: Files and folders that it makes, relative to the folder.
        work: Makes them, given a function that shows progress; returns plain facts about them.
        goes_on: What an interrupted attempt left is of use to the next one; otherwise it is removed.
    """

    name: str
    words: str
    settings: dict[str, Any]
    results: tuple[str, ...]
    work: Callable[[Callable[[float], None]], dict[str, Any]]
    goes_on: bool = False


class StagedFolder:
    """A folder that a command fills stage by stage.

    Args:
        folder: The folder; made with the first stage.
        overwrite: Make a stage again whose settings are others than those that it was made with, and all after it.

    Raises:
        InputError: The folder holds files that no such command wrote.
    """

    def __init__(self, folder: Path, overwrite: bool) -> None:
        self.folder, self.overwrite = folder, overwrite
        record = folder / _RECORD
        self._record: dict[str, dict[str, Any]] = {}
        if record.is_file():
            self._record = json.loads(record.read_text(encoding="utf8"))
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            message = "expected a folder that is new, empty, or of an earlier run of this command, found other files"
            raise InputError(folder, message, "Give another OUTPUT")

    def facts(self, name: str) -> dict[str, Any]:
        """Facts that a finished stage told of its results."""
        return self._record[name]["facts"]

    def seconds(self, name: str) -> float:
        """Seconds that a finished stage took."""
        return self._record[name]["seconds"]

    def is_finished(self, stage: Stage) -> bool:
        """Return True if a stage was finished with these settings."""
        return self._has_facts(stage) and not self._changes(stage)

    def plan(self, stages: list[Stage]) -> list[str]:
        """Say of each stage what `run` does: it is "finished", "to do", or "to do, replaced" if made again."""
        first = next((index for index, stage in enumerate(stages) if not self.is_finished(stage)), len(stages))
        again = ["to do, replaced" if self._has_facts(stage) else "to do" for stage in stages[first:]]
        return ["finished"] * first + again

    def run(self, stages: list[Stage]) -> None:
        """Finish the stages, in order; those that are finished are left as they are.

        Raises:
            InputError: A stage was finished with other settings, and is not to be overwritten.
        """
        self.check(stages)
        for index, stage in enumerate(stages):
            if self.is_finished(stage):
                continue
            if not (stage.goes_on and stage.name in self._record and not self._changes(stage)):
                self._remove(stage)
            for later in stages[index + 1 :]:
                self._remove(later)
            self._do(stage)

    def check(self, stages: list[Stage]) -> None:
        """Refuse to make a finished stage again that must not be overwritten.

        Raises:
            InputError: A stage was finished with other settings, and is not to be overwritten.
        """
        for stage in stages:
            if self._has_facts(stage) and self._changes(stage) and not self.overwrite:
                changes = "; ".join(self._changes(stage))
                message = f"expected the stage '{stage.name}' to have the options that it was made with, found others"
                advice = "Give the same options, another OUTPUT, or --overwrite to make it and what follows again"
                raise InputError(self.folder, f"{message} ({changes})", advice)

    def _do(self, stage: Stage) -> None:
        self._record[stage.name] = {"settings": stage.settings}
        self._write()
        start = monotonic()
        with shown_progress(stage.words) as progress:
            facts = stage.work(progress)
        self._record[stage.name] = {"settings": stage.settings, "facts": facts, "seconds": monotonic() - start}
        self._write()

    def _remove(self, stage: Stage) -> None:
        if stage.name not in self._record:
            return
        # Killed while it deletes, it is neither finished nor forgotten: the next attempt deletes the rest.
        self._record[stage.name] = {"settings": {"being deleted": True}}
        self._write()
        for name in stage.results:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        del self._record[stage.name]
        self._write()

    def _write(self) -> None:
        write_text(self.folder / _RECORD, json.dumps(self._record, indent=1))

    def _has_facts(self, stage: Stage) -> bool:
        return "facts" in self._record.get(stage.name, {})

    def _changes(self, stage: Stage) -> list[str]:
        before = self._record[stage.name]["settings"]
        # As the record holds them: JSON has no tuples.
        now = json.loads(json.dumps(stage.settings))
        names = sorted({*before, *now})
        return [f"{n}: {before.get(n)} before, {now.get(n)} now" for n in names if before.get(n) != now.get(n)]


def read_seconds(folder: Path) -> dict[str, float]:
    """Return how long each finished stage of a folder took."""
    record = json.loads((folder / _RECORD).read_text(encoding="utf8"))
    return {name: stage["seconds"] for name, stage in record.items() if "seconds" in stage}
