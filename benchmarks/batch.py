"""Avatars an hour of `instant-avatar batch`: on one GPU and on two, several at once and one after another.

python -m benchmarks.batch --subject A B --count 16 --output benchmarks/results/instant.json

The subjects are the given folders, in turn, and every batch is the whole command, from Enter to its end, with new
outputs. Keys are merged into the file:

batch_per_hour_1, batch_per_hour_2   avatars an hour on one GPU and on two (where there are two)
batch_sharing_gain                   avatars an hour of several at once on one GPU, against one after another on it
batch_first_s, batch_warm_s          seconds of the first training of a worker, and of its later ones, one at a time
batch_start_s_1, batch_start_s_2     seconds from Enter to the beginning of the first training
batch_stages_s_1, batch_stages_s_2   mean seconds of each stage, and batch_stages_s_serial one after another
batch_psnr                           mean PSNR of the held-out frames, decibels
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import mkdtemp
from time import monotonic, time
from typing import Any, Literal

import tyro
import yaml

from benchmarks import record, training
from benchmarks.record import progress
from benchmarks.workers import visible_gpus
from instantavatar_ns.scripts.train import DEFAULT_METHOD, METHODS

_COMMAND = (sys.executable, "-W", "ignore", "-c", "from instantavatar_ns.scripts.main import run; run()")
_ROOT = Path(__file__).resolve().parents[1]
_LEAST_SERIAL = 4  # trainings one after another, of which the later ones are warm


@dataclass(frozen=True)
class Measured:
    """A batch that has ended.

    Attributes:
        seconds: From Enter to the end.
        rows: Of its summary.
        start: Seconds from Enter to the beginning of the first training.
        stages: Seconds of each stage of the subjects, in the order in which they began.
    """

    seconds: float
    rows: list[dict[str, str]]
    start: float
    stages: dict[str, list[float]]

    @property
    def per_hour(self) -> float:
        """Avatars an hour."""
        return 3600 * len(self.rows) / self.seconds

    @property
    def mean_stages(self) -> dict[str, float]:
        """Mean seconds of each stage."""
        return {stage: round(fmean(seconds), 2) for stage, seconds in self.stages.items()}


@dataclass
class Options:
    """Measure batches."""

    subject: tuple[Path, ...]
    """Folders in InstantAvatar's layout; the batch's subjects are these, in turn."""
    count: int = 16
    """Subjects of a batch."""
    serial: int = 6
    """Subjects of the batch that trains one after another."""
    steps: int | None = None
    """Training steps; by default the method's."""
    method: str | None = None
    """Method; by default the one that fits the machine."""
    per_gpu: int | None = None
    """Avatars that share a GPU; by default the command's choice."""
    lpips_backbone: Path | None = None
    """AlexNet's weights for LPIPS, on machines without network."""
    skip: tuple[Literal["evaluate", "export"], ...] = ()
    """Stages to leave out."""
    gpus: tuple[int, ...] = (1, 2)
    """Numbers of GPUs to measure; more than there are is left out."""
    compile_first: bool = True
    """Run a batch of one first, which leaves compiled kernels on disk; not needed where others have done so."""
    output: Path | None = None
    """JSON file to merge the figures into, after each batch."""


def main(options: Options) -> dict[str, Any]:
    """Measure, and return the figures."""
    names = visible_gpus()
    folder = Path(mkdtemp(prefix="instant-avatar-batch-"))
    on_cpu = names == [""]
    figures: dict[str, Any] = {}

    def add(more: dict[str, Any]) -> None:
        figures.update(more)
        if options.output is not None:
            record.merge(options.output, "batch", figures)

    try:
        several = {}
        if options.compile_first and not on_cpu:
            run(options, folder, "compiling", 1, names[:1], [])  # kernels are kept on disk: all batches find them
        for gpus in options.gpus if not on_cpu else (0,):
            if gpus > len(names):
                progress(f"{gpus} GPUs: there are {len(names)}")
                continue
            shared = [] if options.per_gpu is None else ["--per-gpu", str(options.per_gpu)]
            several[gpus] = run(options, folder, f"gpus-{gpus}", options.count, names[:gpus], shared)
            measured = several[gpus]
            add({f"batch_per_hour_{max(gpus, 1)}": round(measured.per_hour, 1)})
            add({f"batch_start_s_{max(gpus, 1)}": round(measured.start, 2)})
            add({f"batch_stages_s_{max(gpus, 1)}": measured.mean_stages})
        one = ["--workers", "1"]
        serial = run(options, folder, "serial", max(options.serial, _LEAST_SERIAL), names[:1], one)
        add(comparison(several.get(1) or several.get(0), serial))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    record.write(None, record.head() | figures)
    return figures


def run(options: Options, folder: Path, name: str, count: int, gpus: list[str], more: list[str]) -> Measured:
    """Run a batch as a user does.

    Args:
        options: Of the benchmark.
        folder: Where its subjects and its output go.
        name: Of the batch.
        count: Subjects.
        gpus: Names of the GPUs that it may use.
        more: Further arguments.

    Raises:
        RuntimeError: A subject failed.
    """
    sources = [options.subject[index % len(options.subject)].resolve() for index in range(count)]
    subjects = [{"data": str(path), "name": f"{path.name}-{index:02d}"} for index, path in enumerate(sources)]
    evaluate = {} if options.lpips_backbone is None else {"lpips-backbone": str(options.lpips_backbone.resolve())}
    output, people = folder / name, folder / f"{name}.yaml"
    defaults = {"evaluate": evaluate, "train": _schedules(options)}
    people.write_text(yaml.safe_dump({"defaults": defaults, "subjects": subjects}), encoding="utf8")
    line = [*_COMMAND, "batch", str(people), "--output", str(output), *more]
    for flag in ("steps", "method"):
        if getattr(options, flag) is not None:
            line += [f"--{flag}", str(getattr(options, flag))]
    line += ["--skip", *options.skip] if options.skip else []
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    # For a checkout that is not installed.
    environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    start, began = monotonic(), time()
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    seconds = monotonic() - start
    if ended.returncode:
        raise RuntimeError(f"{name}: {ended.stdout[-3000:]}{ended.stderr[-3000:]}")
    with (output / "summary.csv").open(encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    markers: dict[str, list[dict[str, Any]]] = {}
    for path in output.glob("*/stages/*.json"):
        if "." not in path.stem:  # that of a stage which has ended
            markers.setdefault(path.stem, []).append(json.loads(path.read_text(encoding="utf8")))
    for of_stage in markers.values():
        of_stage.sort(key=lambda marker: marker["began"])
    stages = {stage: [marker["seconds"] for marker in of_stage] for stage, of_stage in sorted(markers.items())}
    measured = Measured(seconds, rows, markers["train"][0]["began"] - began, stages)
    progress(f"{name}: {count} avatars in {seconds:.1f} s, {measured.per_hour:.0f} an hour")
    return measured


def _schedules(options: Options) -> dict[str, int]:
    """Options by which the schedules of a short training are as long as it."""
    if options.steps is None:
        return {}
    flags = training.scaled_schedules(METHODS[options.method or DEFAULT_METHOD].config, options.steps)
    return {name.removeprefix("--"): int(value) for name, value in zip(flags[::2], flags[1::2], strict=True)}


def comparison(several: Measured | None, serial: Measured) -> dict[str, Any]:
    """Return the figures that compare several at once with one after another."""
    first, *warm = serial.stages["train"]
    figures: dict[str, Any] = {"batch_first_s": round(first, 2), "batch_warm_s": round(fmean(warm), 2)}
    figures["batch_stages_s_serial"] = serial.mean_stages
    figures["batch_per_hour_serial"] = round(serial.per_hour, 1)
    if several is not None:
        figures["batch_sharing_gain"] = round(several.per_hour / serial.per_hour, 2)
        values = [float(row["heldout psnr"]) for row in several.rows if row["heldout psnr"]]
        if values:
            figures["batch_psnr"] = round(fmean(values), 2)
    return figures


if __name__ == "__main__":
    assert training.NS_TRAIN  # names the methods to nerfstudio where this package is not installed
    main(tyro.cli(Options))
