"""`instant-avatar batch`: avatars of many people, several at once on each GPU, on one machine or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any, Literal

import tyro
from filelock import FileLock, Timeout
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from instantavatar_ns.batch.jobs import Job, read_jobs
from instantavatar_ns.batch.on_ray import Cluster, Pool, connected
from instantavatar_ns.batch.records import SubjectFolder
from instantavatar_ns.batch.state import BatchState
from instantavatar_ns.batch.summary import CSV_FILE, write_summary
from instantavatar_ns.batch.view import counts_text, shown
from instantavatar_ns.batch.workers import WorkerPlan, plan_workers
from instantavatar_ns.utils.errors import InputError

_STAGES = "instantavatar_ns.scripts.batch_stages"


@dataclass
class Batch:
    """Train, evaluate and export an avatar of each of many people, on Ray; with a motion, film each of them too.

    Several avatars share a GPU. What is finished is kept: the same command goes on where it was stopped or killed. A
    subject that fails leaves the others alone. Needs pip install instantavatar-ns[batch].
    """

    subjects: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of recordings, or one YAML file that lists them with options of their own (docs/batch.md)."""
    output: Path = Path("outputs/batch")
    """Folder for the summary and a folder for each subject."""
    method: str | None = None
    """Method to train with; by default instant-avatar on GPUs, instant-avatar-lite without."""
    steps: int | None = None
    """Training steps, over which the learning rates decay; by default the method's."""
    motion: str | None = None
    """Motion to film each avatar in: a file, or walk, dance or stretch."""
    skip: tuple[Literal["evaluate", "export"], ...] = ()
    """Stages to leave out."""
    address: str | None = None
    """Address of a Ray cluster, or "auto" for the one of this machine; by default a Ray of this command's own."""
    per_gpu: int | None = None
    """Avatars that share a GPU; by default as many as its memory takes, at most 6."""
    workers: int | None = None
    """Most avatars at once; by default as many as the GPUs, or the processors, take."""
    dashboard: bool = False
    """Start Ray's dashboard, and print its address."""
    overwrite: bool = False
    """Make stages again that were made with other options, and what follows from them."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""

    def main(self) -> None:
        """Bring all subjects to their ends, and write the summary.

        Raises:
            InputError: A subject, an option or the cluster cannot be used; nothing is done then.
            SystemExit: A subject failed, or the user stopped the command.
        """
        for option in ("per_gpu", "workers"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise InputError(f"--{option.replace('_', '-')}", f"expected at least 1, found {value}", "Give more")
        jobs = read_jobs(self.subjects, self._defaults())
        for job in jobs:
            SubjectFolder(self.output, job).check(self.overwrite)
        if self.dry_run:
            _check(jobs)
            self._print_plan(jobs)
            return
        with _alone_in(self.output):
            state = BatchState(self.output, jobs)
            reused = sum(len(subject.reused) for subject in state.subjects.values())
            if reused:
                CONSOLE.log(f"{reused} stages of an earlier run are finished and kept.")
            start = monotonic()
            if not state.done:
                self._run(state)
            page = write_summary(state)
            CONSOLE.print(f"{counts_text(state)}, after {monotonic() - start:.0f} s", highlight=False)
            for subject in state.failed:
                CONSOLE.print(
                    f"[red]{escape(f'{subject.job.name}: {subject.stage} failed: {subject.cause}')}", soft_wrap=True
                )
            CONSOLE.print(f"Summary: {escape(str(page))} and {CSV_FILE}", soft_wrap=True, highlight=False)
            if state.failed:
                raise SystemExit(1)

    def _defaults(self) -> dict[str, Any]:
        """Values of all subjects for which the file says nothing else."""
        defaults: dict[str, Any] = {"method": self.method or self._usual_method(), "parser": "instant-avatar-data"}
        defaults |= {"steps": self.steps, "motion": self.motion, "skip": list(self.skip)}
        return defaults

    def _usual_method(self) -> str:
        import torch

        return "instant-avatar" if self.address or torch.cuda.is_available() else "instant-avatar-lite"

    def _run(self, state: BatchState) -> None:
        # Ray's processes take seconds to start: what workers are told to do is imported meanwhile.
        importing = Thread(target=import_module, args=(_STAGES,), name="imports")
        importing.start()
        try:
            with connected(self.address, self.dashboard) as cluster:
                plan = self._plan(cluster, state)
                _print_cluster(cluster, plan)
                importing.join()
                from instantavatar_ns.scripts.batch_stages import do_stage, prepare

                pool = Pool(state, plan, do_stage, prepare)
                _check([subject.job for subject in state.subjects.values()])  # while the workers start
                with shown(state) as view:
                    pool.run(view)
        except KeyboardInterrupt:
            write_summary(state)
            CONSOLE.print("\nStopped. What is finished is kept; the same command goes on from there.")
            raise SystemExit(130) from None

    def _plan(self, cluster: Cluster, state: BatchState) -> WorkerPlan:
        per_gpu = self.per_gpu or cluster.avatars_per_gpu()
        return plan_workers(cluster.nodes, state.count("waiting"), per_gpu, self.workers)

    def _print_plan(self, jobs: list[Job]) -> None:
        for job in jobs:
            remaining = SubjectFolder(self.output, job).remaining()
            stages = ", ".join(f"{stage} {'to do' if stage in remaining else 'finished'}" for stage in job.stages)
            CONSOLE.print(escape(f"{job.name} ({job.data}, {job.method}): {stages}"), soft_wrap=True, highlight=False)


def _check(jobs: list[Job]) -> None:
    """Read all options as the stages will: what is wrong is found before anything is done. Like ones are read once."""
    from instantavatar_ns.scripts.batch_stages import check_options

    seen = set()
    for job in jobs:
        options = str((job.method, job.parser, job.stages, sorted(job.flags.items())))
        if options not in seen:
            seen.add(options)
            check_options(job)


@contextmanager
def _alone_in(output: Path) -> Iterator[None]:
    """Keep another batch out of the output's folder."""
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        message = "expected a folder that no other batch works in, found one at work"
        raise InputError(output, message, "Wait for it, or give another --output") from error
    try:
        yield
    finally:
        lock.release()


def _print_cluster(cluster: Cluster, plan: WorkerPlan) -> None:
    gpus = sum(node.gpus for node in cluster.nodes)
    share = f"{plan.gpu:.2g} of a GPU and " if plan.gpu else ""
    machines = f"{len(cluster.nodes)} machine(s) with {gpus} GPU(s)"
    CONSOLE.log(f"{plan.count} workers on {machines}, each with {share}{plan.cpus:g} CPUs", highlight=False)
    if cluster.dashboard:
        token = "; it asks for the token that 'ray get-auth-token' prints" if cluster.token else ""
        CONSOLE.log(f"Ray's dashboard: {cluster.dashboard}{token}", highlight=False)
    CONSOLE.log(f"Ray's logs: {escape(cluster.logs)}", highlight=False)
