"""Several benchmarks in one sitting, on machines that are lent for minutes: a queue for each GPU, with limits.

    python -m benchmarks.sitting --subjects path/to/subjects --results results --archive results.tar.gz \
        --queue start parts speed --queue train-dev-male exports

Queues run at the same time, each on a GPU of its own, in the order of the GPUs; the jobs of a queue one after the
other. Jobs that write the same file (`--list` names it, and how long each may take) belong in one queue. A job that
fails or takes longer ends alone; its last lines are printed. Logs lie beside the results, and the archive is renewed
every ten seconds, so that a machine that is taken away leaves what there was.

The folder of the subjects holds dev-male, dev-female and dev-moving; jobs of recordings that `instant-avatar process`
filled, or that a carried camera filmed, have theirs in its `processed` and `moving`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from typing import NamedTuple

from benchmarks.everywhere import FORMATS
from benchmarks.instant import INSTANT
from benchmarks.record import progress
from benchmarks.workers import visible_gpus

_PEOPLE = ("dev-male", "dev-female", "dev-moving")
_SECONDS_A_SAVE = 10.0
_LAST_LINES = 6


class Job(NamedTuple):
    """A command.

    Attributes:
        command: To run.
        limit: Seconds after which it is stopped.
        all_gpus: Whether it uses all GPUs.
    """

    command: tuple[str, ...]
    limit: float
    all_gpus: bool = False


def jobs(subjects: Path, results: Path, runs: Path, lpips_backbone: Path | None) -> dict[str, Job]:
    """Return all jobs by their names.

    Args:
        subjects: Folder of the recordings.
        results: Folder of the figures.
        runs: Where trainings go.
        lpips_backbone: AlexNet's convolutions, for machines without network.
    """
    male, female, moving = (str(subjects / name) for name in _PEOPLE)
    lpips = () if lpips_backbone is None else ("--lpips-backbone", str(lpips_backbone))
    config = str(runs / "dev-male" / "instant-avatar" / "run" / "config.yml")

    def benchmark(name: str, *arguments: str, output: str | None = None) -> tuple[str, ...]:
        file = results / f"{output or name}.json"
        return (sys.executable, "-m", f"benchmarks.{name}", *arguments, "--output", str(file))

    def of(name: str) -> tuple[str, ...]:
        return ("--runs", str(runs / name))

    seeds = ("--seeds", "0", "1", "2")
    processed = tuple(str(subjects / "processed" / name) for name in _PEOPLE[:2])
    every = ("--load-config", config, "--files", str(runs / "files"))
    result = {
        f"train-{name}": Job(
            (
                *(*INSTANT, "train", "--output-dir", str(runs), "--experiment-name", name),
                *("--timestamp", "run", "--data", str(subjects / name)),
            ),
            90,
        )
        for name in _PEOPLE
    }
    result |= {
        f"export-{name}": Job(
            benchmark("everywhere", *every, "--parts", "export", "--formats", name, output="everywhere"), 90
        )
        for name in FORMATS
    }
    instant = str(results / "instant.json")
    frames = ("--device", "cuda", "--frames", "100", "400", "1600", "--size", "96", "--threads", "8")
    result |= {
        "exports": Job(benchmark("everywhere", *every, "--parts", "export", output="everywhere"), 400),
        "novel": Job(benchmark("everywhere", *every, "--parts", "novel", *lpips, output="everywhere"), 150),
        "start": Job(
            benchmark("instant", "start", "--subject", male, *of("start"), *lpips, output="instant"),
            300,
        ),
        "parts": Job(benchmark("instant", "parts", "--subject", male, *of("start"), output="instant"), 60),
        "check": Job(benchmark("instant", "check", "--subject", male, output="instant"), 60),
        "align": Job((sys.executable, "-m", "benchmarks.alignment", *frames, "--instant", instant), 150),
        "two-gpus": Job(benchmark("two_gpus", "--subject", male, *of("two"), *lpips, output="instant"), 200, True),
        "batch": Job(
            benchmark("batch", "--subject", male, female, "--serial", "4", *lpips, output="instant"),
            400,
            True,
        ),
        "speed": Job(benchmark("speed", "--subject", male, *of("speed"), "--instant", instant), 150),
        "poses": Job(
            benchmark("poses", "--subjects", male, female, moving, *seeds, "--workers", "8", *of("poses"), *lpips), 400
        ),
        "unseen": Job(
            benchmark(
                *("unseen", "--moving", moving, "--turning", male, female, *seeds, "--workers", "8"),
                *(*of("unseen"), *lpips, "--sheets", str(results / "sheets")),
            ),
            400,
        ),
        "ablations": Job(
            benchmark("ablations", "--subjects", male, female, *seeds, "--workers", "8", *of("ablations"), *lpips), 500
        ),
        "clips": Job(
            benchmark(
                *("clip_training", "--clips", *processed, "--subjects", str(subjects), "--no-walk"),
                *(*of("clips"), *lpips, "--pictures", str(results / "pictures")),
                output="data_in",
            ),
            200,
        ),
        "moving-camera": Job(
            benchmark(
                *("moving_camera", "--data", str(subjects / "moving"), *seeds, "--workers", "8"),
                *(*of("moving-camera"), *lpips),
                output="data_in",
            ),
            200,
        ),
        "viewer": Job(benchmark("viewer_fps", "--load-config", config, output="everywhere"), 90),
        "tests": Job(
            (
                *(sys.executable, "-m", "pytest", "-n", "12", "--dist", "loadfile", "--no-loadscope-reorder"),
                *("-p", "no:cacheprovider", "-m", "nightly or not nightly", "tests"),
            ),
            400,
        ),
    }
    kernels = ("kernels_search", "kernels_field", "kernels_occupancy")
    return result | {name: Job(benchmark(name), 90) for name in kernels}


def run_queue(
    names: Sequence[str], known: dict[str, Job], gpu: str, gpus: Sequence[str], logs: Path, lock: Lock
) -> list[str]:
    """Run jobs one after another; returns the names of those that failed.

    Args:
        names: Of the jobs.
        known: All jobs.
        gpu: That of the queue, as CUDA_VISIBLE_DEVICES has it.
        gpus: All of them.
        logs: Folder of the jobs' outputs.
        lock: Held while something is printed.
    """
    failed = []
    for name in names:
        job, path = known[name], logs / f"{name}.log"
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(gpus) if job.all_gpus else gpu}
        with path.open("w", encoding="utf8") as log:
            process = subprocess.Popen(job.command, stdout=log, stderr=log, env=environment, start_new_session=True)
            try:
                status = process.wait(job.limit)
                ended = "done" if status == 0 else f"failed with status {status}"
            except subprocess.TimeoutExpired:
                ended = f"stopped after {job.limit:g} s"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # and what it has started
                process.wait()
        with lock:
            progress(f"{name} {ended}")
            if ended != "done":
                failed.append(name)
                lines = path.read_text(encoding="utf8", errors="replace").splitlines()
                print(*(f"    {line[:200]}" for line in lines[-_LAST_LINES:]), sep="\n", flush=True)
    return failed


def saving(folder: Path, archive: Path) -> Callable[[], None]:
    """Begin to pack a folder again and again; returns what ends that, with all that is there by then.

    Args:
        folder: To pack.
        archive: A `.tar.gz`, which is always whole.
    """
    ended = Event()

    def save() -> None:
        partial = archive.with_suffix(".partial")
        with tarfile.open(partial, "w:gz") as file:
            file.add(folder, folder.name)
        os.replace(partial, archive)

    def work() -> None:
        while not ended.wait(_SECONDS_A_SAVE):
            save()
        save()

    thread = Thread(target=work, name="archive")
    thread.start()

    def end() -> None:
        ended.set()
        thread.join()

    return end


def main() -> None:
    """Run the queues."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=Path, default=Path("subjects"), help="folder of the recordings")
    parser.add_argument("--results", type=Path, default=Path("outputs/sitting"), help="folder of figures and logs")
    parser.add_argument("--runs", type=Path, default=Path("outputs/sitting-runs"), help="where trainings go")
    parser.add_argument("--archive", type=Path, help="file to pack the results into")
    parser.add_argument("--lpips-backbone", type=Path, help="AlexNet's convolutions")
    parser.add_argument("--queue", nargs="+", action="append", default=[], metavar="JOB", help="jobs of a GPU")
    parser.add_argument("--list", action="store_true", help="print the jobs")
    args = parser.parse_args()
    known = jobs(*(path and path.resolve() for path in (args.subjects, args.results, args.runs, args.lpips_backbone)))
    if args.list:
        for name, job in known.items():
            files = [Path(part).name for part in job.command if part.endswith(".json")]
            print(f"{name:20} {job.limit:4.0f} s  {', '.join(files)}{', all GPUs' if job.all_gpus else ''}")
        return
    unknown = {name for queue in args.queue for name in queue} - set(known)
    gpus = visible_gpus()
    if unknown or len(args.queue) > len(gpus):
        parser.error(f"expected jobs of --list in at most {len(gpus)} queues, found {args.queue}")
    logs = args.results / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    end = saving(args.results, args.archive) if args.archive is not None else lambda: None
    lock = Lock()
    try:
        with ThreadPoolExecutor(max(len(args.queue), 1)) as pool:
            work = partial(run_queue, known=known, gpus=gpus, logs=logs, lock=lock)
            several = [pool.submit(work, queue, gpu=gpu) for queue, gpu in zip(args.queue, gpus, strict=False)]
            failed = [name for queue in several for name in queue.result()]
    finally:
        end()
    sys.exit(f"failed: {', '.join(failed)}" if failed else None)


if __name__ == "__main__":
    main()
