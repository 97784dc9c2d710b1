"""The stages of a subject in `instant-avatar batch`: this package's commands, called in one process after another."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import re
import shutil
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import torch
import tyro
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from rich.markup import escape

from instantavatar_ns.batch.jobs import Job, Stage
from instantavatar_ns.batch.work import Progress, Report, Task
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import written_whole
from instantavatar_ns.utils.notices import forget_notices
from instantavatar_ns.utils.replaced import replaced

if TYPE_CHECKING:  # the batch's command imports it while its workers do
    from nerfstudio.engine.trainer import TrainerConfig

_PICTURE_HEIGHT = 240  # pixels
_REPORT_SECONDS = 0.5
_STEPS_PER_LOG = 50  # nerfstudio's 10 follow one another so fast on a GPU that the host spends much time on them
_METRICS = ("psnr", "ssim", "lpips")


def prepare() -> None:
    """Import what training needs, once a process."""
    from instantavatar_ns import config  # noqa: F401
    from instantavatar_ns.training import run  # noqa: F401


def do_stage(task: Task) -> dict[str, Any]:
    """Do a stage of a subject, and return plain facts about its result.

    Raises:
        InputError: The data or an option cannot be used.
    """
    forget_notices()  # each subject's log has its own
    try:
        return {"train": _train, "evaluate": _evaluate, "export": _export, "animate": _animate}[task.stage](task)
    finally:
        gc.collect()  # trainers are cycles, and hold all frames
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the other workers of this GPU need the memory


def check_options(job: Job) -> None:
    """Read the options of a job as its commands will.

    Raises:
        InputError: A method, data parser or option is unknown, or a value cannot be what it must be.
    """
    training_config(job, Path("output", job.name, job.method, "run"), "cpu")
    for stage in job.stages:
        if stage != "train":
            command_of(job, stage, Path("config.yml"))


def training_config(job: Job, run: Path, device: str) -> TrainerConfig:
    """Return the configuration of a subject's training, as ns-train would make it of the job's options.

    Args:
        job: The subject's job.
        run: Folder of the run: <output>/<name>/<method>/run.
        device: "cuda" or "cpu", unless the job's options name another.

    Raises:
        InputError: The method or an option is unknown, or a value cannot be what it must be.
    """
    from instantavatar_ns import config as methods

    known = {spec.config.method_name: spec.config for spec in vars(methods).values() if hasattr(spec, "config")}
    if job.method not in known:
        raise InputError("method", f"expected one of {', '.join(known)}, found {job.method}", "Give one of these")
    default = copy.deepcopy(known[job.method])
    default.machine.device_type = cast(Any, device)
    default.vis = "tensorboard"
    default.logging.steps_per_log = _STEPS_PER_LOG
    default.logging.local_writer.max_log_size = 0  # else it draws the last lines anew for each that it adds
    kind: Any = tyro.conf.SuppressFixed[tyro.conf.FlagConversionOff[type(default)]]
    arguments = [*job.arguments("train"), job.parser, *job.arguments("parse")]
    config = _parsed(kind, arguments, f"{job.name}: train", default)
    config.data = config.pipeline.datamanager.data = job.data
    config.output_dir, config.experiment_name, config.timestamp = run.parents[2], job.name, run.name
    return config


def command_of(job: Job, stage: Stage, run_config: Path) -> Any:
    """Return the command of a stage after training, with the job's options.

    Args:
        job: The subject's job.
        stage: The stage.
        run_config: The run's config.yml.

    Raises:
        InputError: An option is unknown, or a value cannot be what it must be.
    """
    from instantavatar_ns.scripts.animate import Animate
    from instantavatar_ns.scripts.evaluate import Evaluate
    from instantavatar_ns.scripts.export import Export

    kind: Any = {"evaluate": Evaluate, "export": Export, "animate": Animate}[stage]
    taken = {"load-config", "output", "output-dir"} & set(job.flags.get(stage, {}))
    if taken:
        message = f"expected no {', '.join(sorted(taken))} under {stage}, found it"
        raise InputError(job.name, message, "The batch chooses where results go")
    arguments = ["--load-config", str(run_config), *job.arguments(stage)]
    return _parsed(tyro.conf.FlagConversionOff[kind], arguments, f"{job.name}: {stage}", None)


def _parsed(kind: Any, arguments: list[str], origin: str, default: Any) -> Any:
    """Options that tyro makes of arguments; what it prints before it ends the program becomes an error."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            return tyro.cli(kind, args=arguments, **({} if default is None else {"default": default}))
    except SystemExit as error:
        lines = [re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯]|[-─]{4,}", "", line).strip() for line in told.getvalue().splitlines()]
        text = " ".join(line for line in lines if line)
        text = re.sub(r" (For full helptext|Argument helptext:).*", "", text)
        text = re.sub(r"(Perhaps you meant: \S+).*", r"\1", text)
        message = f"expected options of that command, found: {text.rstrip('.')}"
        raise InputError(origin, message, "See the command's --help") from error


def _train(task: Task) -> dict[str, Any]:
    """Train, or go on from the last checkpoint of a training that was killed."""
    run = task.folder.run
    config = training_config(task.folder.job, run, "cuda" if torch.cuda.is_available() else "cpu")
    steps = config.max_num_iterations
    finished = _go_on(config, task.folder.checkpoints) if task.goes_on else 0
    config.max_num_iterations = steps - finished
    facts: dict[str, Any] = {"steps": steps} | ({"resumed at": finished} if finished else {})
    if config.max_num_iterations > 0:
        psnr = train_reporting(config, steps, task.report)
        facts |= {} if psnr is None else {"psnr": psnr}
    return facts


def _go_on(config: TrainerConfig, checkpoints: Path) -> int:
    """Let a training go on from its newest whole checkpoint, and return the steps that it has done."""
    from instantavatar_ns.training.checkpoints import checkpoint_to_resume

    if not any(checkpoints.glob("step-*.ckpt")):
        return 0
    config.load_dir = checkpoints
    try:
        found = checkpoint_to_resume(config)
    except InputError as error:  # cut off when the machine lost its power, say
        CONSOLE.log(f"[yellow]{escape(str(error))} The training begins anew.[/yellow]")
        shutil.rmtree(checkpoints)
        config.load_dir, found = None, None
    return 0 if found is None else found[1]["step"] + 1


def train_reporting(config: TrainerConfig, steps: int, report: Report) -> float | None:
    """Train in this process, and return the PSNR of the last batch of rays, decibels.

    Args:
        config: Of the run, all of it.
        steps: Steps of the whole training, of which an earlier attempt may have done some.
        report: Takes progress, twice a second.
    """
    from instantavatar_ns.trainer import AvatarTrainer
    from instantavatar_ns.training.run import train

    psnr, last, iterate = None, monotonic(), AvatarTrainer.train_iteration

    def iterate_and_report(trainer: AvatarTrainer, step: int) -> Any:
        nonlocal psnr, last
        result = iterate(trainer, step)
        if step + 1 == steps or monotonic() - last >= _REPORT_SECONDS:  # reading a metric blocks the host
            last = monotonic()
            value = result[2].get("psnr")
            psnr = psnr if value is None else float(value)
            report(Progress(step + 1, steps, psnr))
        return result

    with replaced(AvatarTrainer, "train_iteration", iterate_and_report):  # a worker trains one at a time
        train(config)
    return psnr


def _evaluate(task: Task) -> dict[str, Any]:
    results = command_of(task.folder.job, "evaluate", task.folder.run / "config.yml").main()
    _write_picture(task.folder.run / "eval" / next(iter(results)), task.folder.picture)
    return {
        frames: {name: values[name] for name in (*_METRICS, "psnr_fitted") if name in values}
        for frames, values in results.items()
    }


def _export(task: Task) -> dict[str, Any]:
    return {"file": str(command_of(task.folder.job, "export", task.folder.run / "config.yml").main())}


def _animate(task: Task) -> dict[str, Any]:
    return {"file": str(command_of(task.folder.job, "animate", task.folder.run / "config.yml").main())}


def _write_picture(images: Path, output: Path) -> None:
    """Write one of the evaluated images, small: the truth left, the avatar right."""
    paths = sorted(images.glob("*_img_*.png"))
    if not paths:
        return
    with Image.open(paths[len(paths) // 2]) as image:
        height = min(_PICTURE_HEIGHT, image.height)
        small = image.convert("RGB").resize((round(image.width * height / image.height), height), Image.Resampling.BOX)
    with written_whole(output) as partial:
        small.save(partial, quality=85)
