"""A batch on Ray: workers that stay warm, each with a share of a GPU. The only module that talks to Ray."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from instantavatar_ns.batch.jobs import Job, Stage
from instantavatar_ns.batch.state import BatchState
from instantavatar_ns.batch.summary import write_summary
from instantavatar_ns.batch.view import View
from instantavatar_ns.batch.work import Do, Outcome, Progress, carry_out, cause_of
from instantavatar_ns.batch.workers import Node, WorkerPlan, avatars_per_gpu, gpu_megabytes
from instantavatar_ns.utils.errors import InputError

_POLL_SECONDS = 0.25
_REPORT_SECONDS = 0.5
_SUMMARY_SECONDS = 5.0  # at most that often: a page of hundreds of pictures takes a moment
_WORD_AFTER_SECONDS = 60.0
_OBJECT_STORE_BYTES = 100 << 20  # only names and figures travel through Ray
_MOST_FAILED_STARTS = 3
_STARTS = 3


@dataclass(frozen=True)
class Cluster:
    """A Ray that this process is connected to.

    Attributes:
        nodes: Its machines.
        local: It was started by this process, on this machine.
        dashboard: Address of its dashboard; None without one.
        token: The dashboard asks for Ray's token.
        logs: Where the logs of its processes are.
    """

    nodes: tuple[Node, ...]
    local: bool
    dashboard: str | None
    token: bool
    logs: str

    def avatars_per_gpu(self) -> int:
        """As many as the smallest memory of its GPUs takes."""
        if not any(node.gpus for node in self.nodes):
            return 1
        if self.local:
            return avatars_per_gpu(gpu_megabytes())
        ray = _import_ray()
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ask = ray.remote(num_cpus=0, num_gpus=0.01)(gpu_megabytes)
        with_gpus = [node["NodeID"] for node in _alive(ray.nodes()) if node["Resources"].get("GPU")]
        asked = [
            ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
            for node in with_gpus
        ]
        known = [megabytes for megabytes in ray.get(asked) if megabytes is not None]
        return avatars_per_gpu(min(known, default=None))


@contextmanager
def connected(address: str | None, dashboard: bool) -> Iterator[Cluster]:
    """Start a Ray on this machine, or connect to a cluster, while the context lasts.

    Args:
        address: Of a cluster, as `ray start` prints it, or "auto"; None starts a Ray of its own.
        dashboard: Start Ray's dashboard with a Ray of its own.

    Raises:
        InputError: Ray is not installed, has no dashboard, does not start or cannot be reached.
    """
    ray = _import_ray(dashboard and address is None)
    # Ray reports its use to its makers unless told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {"include_dashboard": dashboard, "object_store_memory": _OBJECT_STORE_BYTES}
    context = _init(ray, options, address)
    try:
        nodes = tuple(
            Node(node["Resources"].get("CPU", 0.0), int(node["Resources"].get("GPU", 0)))
            for node in _alive(ray.nodes())
        )
        url = context.dashboard_url if dashboard or address is not None else None
        url = f"http://{url}" if url and "://" not in url else url or None
        logs = os.path.join(context.address_info["session_dir"], "logs")
        yield Cluster(nodes, address is None, url, os.environ.get("RAY_AUTH_MODE") == "token", logs)
    finally:
        ray.shutdown()


def _import_ray(dashboard: bool = False) -> Any:
    """Ray, whose decorators hide from type checkers what they return."""
    try:
        import ray
    except ImportError as error:
        message = "expected Ray, which instant-avatar batch runs on, found it not installed"
        raise InputError("ray", message, "pip install instantavatar-ns[batch]") from error
    if dashboard:
        try:
            import ray.dashboard.optional_deps
        except ImportError as error:
            message = f"expected what Ray's dashboard needs, found it not installed ({error})"
            raise InputError("--dashboard", message, 'pip install "ray[default]", or leave --dashboard out') from error
    return ray


def _init(ray: Any, options: dict[str, Any], address: str | None) -> Any:
    """Connect; a local Ray gets several attempts, because its parts give up early on a busy machine."""
    attempts = 1 if address else _STARTS
    reason: Exception | None = None
    for _ in range(attempts):
        try:
            return ray.init(**options)
        except Exception as error:  # Ray raises all kinds, plain Exception among them
            reason = error
            ray.shutdown()
    cause = " ".join(str(reason).split())
    if address:
        message = f"expected a Ray cluster there, found none that answers ({cause})"
        raise InputError(
            f"--address {address}", message, "Start one with 'ray start --head', see docs/batch.md"
        ) from reason
    message = f"expected Ray to start on this machine, found that it failed {attempts} times ({cause})"
    raise InputError(
        "ray", message, "Look into /tmp/ray/session_latest/logs, and whether the machine is busy"
    ) from reason


def _alive(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [node for node in nodes if node["Alive"]]


class _Board:
    """The latest progress of each subject, from where workers are to where it is shown."""

    def __init__(self) -> None:
        self._posts: dict[str, tuple[Stage, Progress]] = {}

    def post(self, name: str, stage: Stage, progress: Progress) -> None:
        """Take a subject's progress."""
        self._posts[name] = stage, progress

    def take(self) -> dict[str, tuple[Stage, Progress]]:
        """Return what was posted since the last call."""
        posts, self._posts = self._posts, {}
        return posts


class _Worker:
    """A process that does one stage after another, and keeps what it has imported and compiled."""

    def __init__(self, output: Path, directory: Path, do: Do, board: Any) -> None:
        self._output, self._do, self._board = output, do, board
        os.chdir(directory)  # relative paths among the options start there

    def warm_up(self, prepare: Callable[[], None]) -> str:
        """Import what stages need, and return where this is."""
        ray = _import_ray()
        prepare()
        gpus = ray.get_gpu_ids()
        self._place = f"{socket.gethostname()} " + (f"GPU {gpus[0]}" if gpus else "CPU")
        return self._place

    def run(self, job: Job, stage: Stage) -> Outcome:
        """Do a stage."""
        last = 0.0

        def report(progress: Progress) -> None:
            nonlocal last
            if monotonic() - last >= _REPORT_SECONDS:
                last = monotonic()
                self._board.post.remote(job.name, stage, progress)

        return carry_out(self._output, job, stage, self._do, report, self._place)


@dataclass
class _Call:
    """A worker and its present task: a stage, or None while it starts."""

    worker: Any
    task: tuple[Job, Stage] | None


class Pool:
    """Workers, which start at once, and what each is at.

    Args:
        state: The batch.
        plan: The workers.
        do: Does a stage in a worker; a function that workers can import.
        prepare: Imports what that needs; likewise.
    """

    _view: View

    def __init__(self, state: BatchState, plan: WorkerPlan, do: Do, prepare: Callable[[], None]) -> None:
        self._ray = ray = _import_ray()
        self._state = state
        # It is asked twice a second: Ray's dashboard lists stages, and not these calls among them.
        self._board = ray.remote(num_cpus=0, max_restarts=-1, enable_task_events=False)(_Board).remote()
        worker = ray.remote(num_cpus=plan.cpus, num_gpus=plan.gpu)(_Worker)
        arguments = (state.output.absolute(), Path.cwd(), do, self._board)
        self._new = lambda: worker.remote(*arguments)
        self._prepare = prepare
        self._calls: dict[Any, _Call] = {}
        self._places: dict[Any, str] = {}
        self._idle: list[Any] = []
        self._failed_starts = 0
        self._summary_at = -_SUMMARY_SECONDS
        for _ in range(plan.count):
            self._start_worker()

    def run(self, view: View) -> None:
        """Bring the batch to its end.

        Args:
            view: Shows it.

        Raises:
            InputError: No worker can start.
        """
        self._view = view
        began, told = monotonic(), False
        while not self._state.done:
            self._give_out()
            ready, _ = self._ray.wait(list(self._calls), timeout=_POLL_SECONDS)
            for call in ready:
                self._end(call)
            self._read_board()
            self._view.update()
            if not told and not self._places and monotonic() - began > _WORD_AFTER_SECONDS:
                told = True
                self._view.say("No worker has started yet: the machines are busy, or at work for others.")
        write_summary(self._state)

    def _start_worker(self) -> None:
        worker = self._new()
        self._calls[worker.warm_up.remote(self._prepare)] = _Call(worker, None)

    def _give_out(self) -> None:
        while self._idle and (task := self._state.next_task()) is not None:
            worker, (job, stage) = self._idle.pop(), task
            self._state.start(job.name, self._places[worker], monotonic())
            named = worker.run.options(name=f"{job.name}: {stage}")  # for Ray's dashboard
            self._calls[named.remote(job, stage)] = _Call(worker, task)

    def _end(self, reference: Any) -> None:
        """Take what a call returned, or put another worker in the place of one that died."""
        call = self._calls.pop(reference)
        try:
            result: Any = self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            self._replace(call, _cause_of_death(error))
            return
        except self._ray.exceptions.RayTaskError as error:
            if call.task is None:
                message = f"expected a worker to start, found that it does not ({cause_of(error.cause)})"
                advice = "Install the same version of this package on every machine"
                raise InputError("workers", message, advice) from error
            result = Outcome(None, cause_of(error.cause))
        self._idle.append(call.worker)
        if call.task is None:
            self._places[call.worker], self._failed_starts = result, 0
        else:
            self._note(call.task, result)

    def _note(self, task: tuple[Job, Stage], outcome: Outcome) -> None:
        """Take how a stage ended into the state, the view and the summary."""
        job, stage = task
        subject = self._state.end(job.name, outcome)
        self._view.ended(subject, stage)
        if subject.status in ("finished", "failed") and monotonic() - self._summary_at > _SUMMARY_SECONDS:
            self._summary_at = monotonic()
            write_summary(self._state)

    def _replace(self, call: _Call, cause: str) -> None:
        self._ray.kill(call.worker)  # it may be out of reach only, and still at work
        self._places.pop(call.worker, None)
        if call.task is None:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                message = f"expected a worker to start, found that {_MOST_FAILED_STARTS} of them died ({cause})"
                raise InputError("workers", message, "Look into Ray's logs; there may be too little memory")
        else:
            job, stage = call.task
            subject = self._state.lose(job.name, cause)
            if subject.status == "failed":
                self._view.ended(subject, stage)
            else:
                self._view.say(f"{job.name}: the worker died at {stage}, which is done again ({cause})", "yellow")
        self._start_worker()

    def _read_board(self) -> None:
        try:
            posts = self._ray.get(self._board.take.remote(), timeout=5.0)
        except self._ray.exceptions.RayError:  # the board has died and starts again: progress only
            return
        for name, (stage, progress) in posts.items():
            self._state.report(name, stage, progress)


def _cause_of_death(error: Exception) -> str:
    """Return in a few words why a worker died, of Ray's report of many lines."""
    found = re.search(r"exit type: (\w+)", str(error))
    kind = found[1] if found else ""
    if "OUT_OF_MEMORY" in kind:
        return "its machine ran out of memory; give fewer --workers"
    if kind == "SYSTEM_ERROR":
        return "its process ended unexpectedly, killed or out of memory"
    first = " ".join(str(error).split()).split(". ")[0]
    return f"{kind}: {first}"[:200] if kind else first[:200]
