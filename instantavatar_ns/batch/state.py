"""The state of a batch: what each subject waits for, and which stage is next for a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from instantavatar_ns.batch.jobs import Job, Stage
from instantavatar_ns.batch.records import StageRecord, SubjectFolder
from instantavatar_ns.batch.work import Outcome, Progress

Status = Literal["waiting", "running", "finished", "failed"]
# A stage whose worker has died that often is at fault itself, by its memory for instance.
_MOST_DEATHS = 3


@dataclass
class SubjectState:
    """Progress of a subject through its stages.

    Attributes:
        folder: Its folder.
        records: Of its finished stages.
        status: Whether one of its stages is running, or nothing is left to do.
        stage: The stage that is running, that is next, or that failed.
        place: Where it runs, such as "node1 GPU 0".
        since: Start of the running stage, seconds of a clock.
        progress: Of the running stage.
        cause: Why it failed, one line.
        deaths: Workers that died in its present stage.
        reused: Stages that were finished before this batch began.
    """

    folder: SubjectFolder
    records: dict[Stage, StageRecord] = field(default_factory=dict)
    status: Status = "waiting"
    stage: Stage | None = None
    place: str = ""
    since: float = 0.0
    progress: Progress | None = None
    cause: str = ""
    deaths: int = 0
    reused: tuple[Stage, ...] = ()

    @property
    def job(self) -> Job:
        """Its job."""
        return self.folder.job

    @property
    def seconds(self) -> float:
        """Seconds of its finished stages."""
        return sum(record.seconds for record in self.records.values())

    def metric(self, name: str, frames: str = "heldout") -> float | None:
        """A metric of the evaluated frames, "heldout" or "novel"; None before they are evaluated."""
        facts = self.records["evaluate"].facts if "evaluate" in self.records else {}
        return facts.get(frames, {}).get(name)


class BatchState:
    """The subjects of a batch.

    Args:
        output: Folder of the batch.
        jobs: The subjects' jobs.
    """

    def __init__(self, output: Path, jobs: Sequence[Job]) -> None:
        self.output = output
        self.subjects = {job.name: _read_state(SubjectFolder(output, job)) for job in jobs}

    @property
    def done(self) -> bool:
        """True when every subject is finished or has failed."""
        return all(subject.status in ("finished", "failed") for subject in self.subjects.values())

    @property
    def failed(self) -> list[SubjectState]:
        """Subjects that failed."""
        return [subject for subject in self.subjects.values() if subject.status == "failed"]

    def count(self, status: Status) -> int:
        """Number of subjects with that status."""
        return sum(subject.status == status for subject in self.subjects.values())

    def next_task(self) -> tuple[Job, Stage] | None:
        """Return what a free worker should do, if anything: the subjects that are furthest come first."""
        waiting = [subject for subject in self.subjects.values() if subject.status == "waiting"]
        if not waiting:
            return None
        subject = max(waiting, key=lambda subject: len(subject.records))
        assert subject.stage is not None
        return subject.job, subject.stage

    def start(self, name: str, place: str, now: float) -> None:
        """Note that a subject's stage runs."""
        subject = self.subjects[name]
        subject.status, subject.place, subject.since, subject.progress = "running", place, now, None

    def report(self, name: str, stage: Stage, progress: Progress) -> None:
        """Note the progress of a stage; what comes too late is left out."""
        subject = self.subjects[name]
        if subject.status == "running" and subject.stage == stage:
            subject.progress = progress

    def end(self, name: str, outcome: Outcome) -> SubjectState:
        """Note how a stage ended, and return the subject's state."""
        subject = self.subjects[name]
        assert subject.stage is not None
        if outcome.record is None:
            subject.status, subject.cause = "failed", outcome.cause
            return subject
        subject.records[subject.stage] = outcome.record
        _proceed(subject)
        return subject

    def lose(self, name: str, cause: str) -> SubjectState:
        """Note that the worker has died: the stage is done again, unless that happened too often."""
        subject = self.subjects[name]
        subject.deaths += 1
        if subject.deaths < _MOST_DEATHS:
            subject.status, subject.progress = "waiting", None
        else:
            subject.status = "failed"
            subject.cause = f"{subject.deaths} workers died at it, the last one by: {cause}"
        return subject


def _read_state(folder: SubjectFolder) -> SubjectState:
    subject = SubjectState(folder)
    for stage in folder.job.stages:
        record = folder.finished(stage)
        if record is None:
            break  # what follows is made from it
        subject.records[stage] = record
    subject.reused = tuple(subject.records)
    _proceed(subject)
    return subject


def _proceed(subject: SubjectState) -> None:
    """Turn to the first stage that is not finished."""
    subject.progress, subject.deaths = None, 0
    subject.stage = next((stage for stage in subject.job.stages if stage not in subject.records), None)
    subject.status = "finished" if subject.stage is None else "waiting"
