"""The folder of a subject: which of its stages are finished, by markers that are written last."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from instantavatar_ns.batch.jobs import STAGES, Job, Stage
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import delete_partial, written_whole

# Results of each stage, relative to the run's folder; training makes the folder itself.
_RESULTS: dict[Stage, tuple[str, ...]] = {
    "train": (".",),
    "evaluate": ("eval",),
    "export": ("export",),
    "animate": ("animate",),
}
_GO_ON: tuple[Stage, ...] = ("train", "animate")  # from a checkpoint, and from the frames that are there
PICTURE = "picture.jpg"
_LOCK = ".lock"


@dataclass(frozen=True)
class StageRecord:
    """Facts about a finished stage.

    Attributes:
        fingerprint: Of all options that its result follows from.
        settings: Those of the stage itself.
        facts: Plain values about the result, such as metrics.
        seconds: Time that the last attempt took.
        place: Where it ran, such as "node1 GPU 0".
        began: Start of the last attempt, seconds since 1970.
    """

    fingerprint: str
    settings: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    place: str = ""
    began: float = 0.0


class SubjectFolder:
    """A subject's folder in the output, which holds its run, its logs and the markers of its stages.

    Args:
        output: Folder of the batch.
        job: The subject's job.
    """

    def __init__(self, output: Path, job: Job) -> None:
        self.job = job
        self.folder = output / job.name
        # nerfstudio's commands expect <experiment>/<method>/<timestamp>.
        self.run = self.folder / job.method / "run"
        self.checkpoints = self.run / "nerfstudio_models"
        self.picture = self.folder / PICTURE
        self._markers = self.folder / "stages"

    def log(self, stage: Stage) -> Path:
        """File of what a stage printed."""
        return self.folder / f"{stage}.log"

    def fingerprint(self, stage: Stage) -> str:
        """Digest of all options that a stage's result follows from."""
        settings = [self.job.settings("train"), self.job.settings(stage)]
        return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def finished(self, stage: Stage) -> StageRecord | None:
        """Record of a stage that was finished with these options, else None."""
        record = self._read(self._finished_marker(stage))
        return record if record is not None and record.fingerprint == self.fingerprint(stage) else None

    def remaining(self) -> list[Stage]:
        """Stages still to be done, in order."""
        return [stage for stage in self.job.stages if self.finished(stage) is None]

    def changes(self) -> dict[Stage, list[str]]:
        """Settings that differ from those with which a stage was begun or finished, for each such stage."""
        changes: dict[Stage, list[str]] = {}
        for stage in self.job.stages:
            record = self._read(self._finished_marker(stage)) or self._read(self._started_marker(stage))
            if record is not None and record.fingerprint != self.fingerprint(stage):
                changes[stage] = _differences(record.settings, self._plain_settings(stage))
        return changes

    def check(self, overwrite: bool = False) -> None:
        """Make sure that no result of other options, and no file of somebody else, would be replaced.

        Args:
            overwrite: Results of other options may be replaced.

        Raises:
            InputError: A stage was begun or finished with other options, or the folder holds other files.
        """
        advice = "Give the same options, another --output, or --overwrite to make it and what follows from it again"
        for stage, differences in () if overwrite else self.changes().items():
            what = "; ".join(differences) or "another training"
            message = f"expected the stage '{stage}' to have the options that it was made with, found others ({what})"
            raise InputError(self.folder, message, advice)
        others = [path for path in self.folder.glob("*") if path.name != _LOCK]
        if others and not self._markers.is_dir():
            message = "expected a folder that is new, empty, or of an earlier batch, found other files"
            raise InputError(self.folder, message, "Give another --output, or the subject another name")

    @contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Keep other processes out of the folder; a process that ends in any way gives it free.

        Args:
            seconds: Longest wait for another process.

        Raises:
            InputError: Another process has worked there all the while.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / _LOCK)
        try:
            lock.acquire(timeout=seconds)
        except Timeout as error:
            message = f"expected a folder that no other process works in, found one at work for {seconds:.0f} s"
            raise InputError(
                self.folder, message, "Wait for it, or end it, and start the same command again"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def begin(self, stage: Stage) -> bool:
        """Mark a stage as begun, and remove what is of no use; the folder must be locked.

        What a killed attempt with the same options left is kept where the stage goes on from it.

        Returns:
            True where there is something to go on from.
        """
        started = self._read(self._started_marker(stage))
        goes_on = stage in _GO_ON and started is not None and started.fingerprint == self.fingerprint(stage)
        if not goes_on:
            self.remove(stage)
            for later in STAGES[STAGES.index(stage) + 1 :] if stage == "train" else ():
                self.remove(later)  # what follows from another training
        if self.run.is_dir():
            delete_partial(self.run)
            shutil.rmtree(self.run / ".checkpoint-partial", ignore_errors=True)
        self._write(self._started_marker(stage), StageRecord(self.fingerprint(stage), self._plain_settings(stage)))
        return goes_on

    def finish(self, stage: Stage, facts: dict[str, Any], seconds: float, place: str, began: float) -> StageRecord:
        """Mark a stage as finished, once all of its results are in place."""
        record = StageRecord(self.fingerprint(stage), self._plain_settings(stage), facts, seconds, place, began)
        self._write(self._finished_marker(stage), record)
        self._started_marker(stage).unlink(missing_ok=True)
        return record

    def give_up(self, stage: Stage) -> None:
        """Remove what a failed stage left half-written, unless the next attempt can go on from it."""
        if stage not in _GO_ON or (stage == "train" and not any(self.checkpoints.glob("*.ckpt"))):
            self.remove(stage)

    def remove(self, stage: Stage) -> None:
        """Delete a stage's markers first, then its results."""
        before = self._read(self._finished_marker(stage)) or self._read(self._started_marker(stage))
        self._finished_marker(stage).unlink(missing_ok=True)
        if before is None:
            return
        if stage == "evaluate":
            self.picture.unlink(missing_ok=True)
        # Training may have been by another method, whose run has another folder.
        method = before.settings.get("method", self.job.method)
        run = self.folder / method / "run"
        for name in _RESULTS[stage]:
            shutil.rmtree(run / name, ignore_errors=True)
        if run.parent.is_dir() and not any(run.parent.iterdir()):
            run.parent.rmdir()
        self._started_marker(stage).unlink(missing_ok=True)

    def _plain_settings(self, stage: Stage) -> dict[str, Any]:
        """Settings as a marker's file holds them: JSON has no tuples."""
        return json.loads(json.dumps(self.job.settings(stage), default=str))

    def _finished_marker(self, stage: Stage) -> Path:
        return self._markers / f"{stage}.json"

    def _started_marker(self, stage: Stage) -> Path:
        return self._markers / f"{stage}.started.json"

    def _write(self, path: Path, record: StageRecord) -> None:
        with written_whole(path) as partial:
            partial.write_text(json.dumps(asdict(record), indent=1), encoding="utf8")

    def _read(self, path: Path) -> StageRecord | None:
        try:
            return StageRecord(**json.loads(path.read_text(encoding="utf8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            message = f"expected the marker of a finished stage, found something else ({error})"
            raise InputError(path, message, "Delete it to do the stage again") from error


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Values that differ, as "name: old before, new now"; nested ones by their own names."""
    found = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, prefix)
        elif old != new:
            found.append(f"{name}: {old} before, {new} now")
    return found
