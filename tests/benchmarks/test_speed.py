"""The benchmark of training, at a size that a CPU trains in seconds."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import first_step, speed, training, watches
from benchmarks.speed import Speed
from benchmarks.watches import Curve, Profile, Stopwatch
from tests.commands import TINY_TRAINING

STEPS = 40
INTERVAL = 10


# The grid is refreshed within the few steps, and the person can be recognized at the end.
SMALL = [
    *TINY_TRAINING,
    *["--pipeline.model.step-size", "0.04"],
    *["--pipeline.model.occupancy-warmup", str(INTERVAL)],
    *["--pipeline.model.occupancy-interval", str(INTERVAL)],
    *["--optimizers.field.optimizer.lr", "0.02"],
]


@pytest.fixture(scope="module")
def tiny_subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from instantavatar_ns.scripts.demo_data import DemoData

    folder = tmp_path_factory.mktemp("tiny") / "subject"
    DemoData(output=folder, size=32, train_frames=4, heldout_frames=2, novel_frames=2).main()
    return folder


@pytest.fixture
def tiny_speed(tiny_subject: Path, tmp_path: Path) -> Speed:
    return Speed(
        tiny_subject,
        output=tmp_path / "speed.json",
        method="instant-avatar-lite",
        options=" ".join(SMALL),
        budget=1000.0,
        steps=STEPS,
        probe_steps=STEPS,
        runs=tmp_path / "runs",
    )


@pytest.mark.nightly
@pytest.mark.skipif(torch.cuda.is_available(), reason="times a GPU's kernels, which takes minutes")
def test_everything_that_a_cpu_can_measure_is_written(tiny_speed: Speed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "first_step_seconds", lambda arguments: {"first_step_s": float(len(arguments))})
    tiny_speed.main()
    figures = json.loads(tiny_speed.output.read_text())
    assert {"date", "device", "commit", "command", "torch", "first_step_s"} <= set(figures)
    assert "memory_gb" not in figures and "launches" not in figures and "search_ms" not in figures
    for name in ("step_ms", "mean_step_ms", "loop_ms", "frame_ms_540", "frame_ms_1080"):
        assert 0 < figures[name] < 60_000, name
    assert figures["loop_ms"] < 0.2 * figures["step_ms"]
    assert figures["frame_ms_1080"] > 1.5 * figures["frame_ms_540"]
    curve = figures["curve"]
    assert [point["step"] for point in curve] == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    assert all(a["seconds"] < b["seconds"] for a, b in pairwise(curve))
    assert figures["train_seconds"] == curve[-1]["seconds"]
    # The clock stands while images are rendered, which takes longer than four steps.
    assert figures["train_seconds"] < 3 * STEPS * figures["step_ms"] / 1000
    assert figures["novel_psnr"] == curve[-1]["novel_psnr"] > curve[0]["novel_psnr"]
    assert figures["seconds_to_released"] is None
    with Image.open(tiny_speed.output.with_suffix(".png")) as picture:
        assert picture.width > 500


@pytest.mark.nightly
def test_figures_are_those_of_the_evaluate_command(trained_run: Path) -> None:
    from nerfstudio.utils.eval_utils import eval_setup

    from instantavatar_ns.scripts.evaluate import Evaluate

    published = Evaluate(load_config=trained_run / "config.yml", sets=("heldout",)).main()["heldout"]["psnr"]
    _, pipeline, _, _ = eval_setup(trained_run / "config.yml")
    frames = speed.load_frames(pipeline.datamanager.eval_dataset, pipeline.device)
    assert speed.psnr(pipeline.model, frames) == pytest.approx(published, abs=1e-4)


def test_schedules_are_scaled_and_options_come_last(tiny_speed: Speed) -> None:
    tiny_speed.options = "--pipeline.model.empty-steps 7"
    arguments = tiny_speed.arguments("any", 400)  # half of the method's
    assert arguments[arguments.index("--pipeline.model.pose-start") + 1] == "75"
    last = len(arguments) - arguments[::-1].index("--pipeline.model.empty-steps")
    assert arguments[last] == "7"


def test_a_probe_without_a_middle_is_refused(tiny_speed: Speed) -> None:
    tiny_speed.probe_steps = 3 * INTERVAL
    with pytest.raises(SystemExit, match="at least 40"):
        tiny_speed.probe()


@pytest.mark.nightly
def test_traced_steps_and_refreshes_are_found_in_the_trace(tiny_speed: Speed) -> None:
    trainer = training.set_up(tiny_speed.arguments("traced", STEPS))
    profile, watch = Profile(19, INTERVAL), Stopwatch(5, 15)
    profile.attach(trainer)
    watch.attach(trainer)
    trainer.train()
    assert set(profile.figures) >= {"launches", "graph_launches", "copies", "syncs", "refresh_syncs", "gpu_ms"}
    assert watch.milliseconds > 0
    if not torch.cuda.is_available():
        assert set(profile.figures.values()) == {0.0} and profile.kernels == []


def test_the_mean_of_all_steps_leaves_out_the_first_and_the_traced_ones(
    tiny_speed: Speed, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, traced = 0.0, []

    class SlowProfile(Profile):
        def attach(self, trainer: Any) -> None:
            watches.after(trainer, self._trace)

        def _trace(self, step: int) -> None:
            nonlocal now
            if self._traced(step):
                traced.append(step)
                now += 100

    def train() -> None:
        nonlocal now
        for step in range(STEPS):
            now += 100 if step == 0 else 2 if step <= STEPS // 3 else 1
            for callback in trainer.callbacks:
                callback.run_callback(step)

    config = SimpleNamespace(occupancy_interval=INTERVAL)
    rays = SimpleNamespace(late_rays_mult=1)
    pipeline = SimpleNamespace(model=SimpleNamespace(config=config), datamanager=SimpleNamespace(config=rays))
    trainer = SimpleNamespace(callbacks=[], pipeline=pipeline, train=train)
    monkeypatch.setattr(training, "set_up", lambda arguments: trainer)
    monkeypatch.setattr(training, "synchronise", lambda: None)
    monkeypatch.setattr(speed, "Profile", SlowProfile)
    monkeypatch.setattr(watches.time, "perf_counter", lambda: now)
    for name in ("reset_peak_memory_stats", "max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    figures = tiny_speed.probe()
    assert len(traced) == INTERVAL and traced[-1] < STEPS - 1
    assert figures["step_ms"] == pytest.approx(1000)
    slow, steps = STEPS // 3, STEPS - 1 - INTERVAL
    assert figures["mean_step_ms"] == pytest.approx(1000 * (2 * slow + steps - slow) / steps)


class ReadsOnHost(TorchDispatchMode):
    """Counts the numbers that the host reads, for which it would wait on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ == "_local_scalar_dense"
        return func(*args, **(kwargs or {}))


def test_psnr_does_not_wait_for_each_image() -> None:
    image = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0))
    model = SimpleNamespace(
        eval=lambda: None, train=lambda: None, get_outputs_for_camera=lambda camera: {"rgb": image + camera}
    )
    with ReadsOnHost() as reads:
        value = speed.psnr(model, [(0.1, image), (-0.1, image), (0.1, image)])
    assert 15 < value < 25
    assert reads.count == 1


def test_the_clock_stands_while_it_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def evaluate() -> dict[str, float]:
        nonlocal now
        now += 100
        return {"psnr": now}

    monkeypatch.setattr(watches.time, "perf_counter", lambda: now)
    trainer = SimpleNamespace(callbacks=[])
    curve = Curve(20, evaluate)
    curve.attach(trainer)
    for step in range(20):
        now += 50 if step == 0 else 1
        trainer.callbacks[0].run_callback(step)
    assert [point["seconds"] for point in curve.points] == [2.0 * mark - 1 for mark in range(1, 11)]


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_first_step_is_timed_without_the_import(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    environments = []

    def last_number(command: list[str], environment: dict[str, str]) -> float:
        environments.append(environment)
        return seconds if "-c" in command else first_step.time.time() + 10

    monkeypatch.setattr(first_step, "_last_number", last_number)
    monkeypatch.setenv("CC", "gcc")
    figures = first_step.first_step_seconds([])
    assert figures["first_step_s"] == pytest.approx(10 - seconds, abs=0.5)
    assert "CC" not in environments[1] and "gcc" not in environments[1]["PATH"]
    assert not math.isnan(figures["nerfstudio_import_s"])


@pytest.mark.nightly
def test_the_first_step_of_a_new_machine_is_reached(tiny_speed: Speed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_step, "_IMPORT", "print(0.0)")
    figures = first_step.first_step_seconds(tiny_speed.arguments("first", STEPS))
    assert figures["first_step_s"] > 0
    run = tiny_speed.runs / "first" / tiny_speed.method / "run"
    assert (run / "config.yml").is_file() and not (run / "nerfstudio_models").exists()
