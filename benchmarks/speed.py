"""Train, evaluate and time `instant-avatar` on a subject folder: the figures of docs/performance.md.

    python -m benchmarks.speed --subject path/to/dev-male --output benchmarks/results/speed.json

Everything goes through nerfstudio's own, unmodified trainer, set up as ns-train does and watched by callbacks:

- A first training of `--probe-steps` steps is timed in its middle, before and after the step from which on there are
  more rays (`step_ms`, `late_step_ms`, the GPU waited for at both ends only). Steps before that one are traced
  (`launches` and the like, `gpu_ms`, and `kernels`, the busiest ones: benchmarks/trace.py). `mean_step_ms` is over all
  its steps but the first and the traced ones: with the start, when all space is occupied, and with steps
  that are captured. `memory_gb` is the most that PyTorch had given out, `memory_reserved_gb` the most it held.
  `loop_ms` is the same loop with nothing in it.
- A second training has as many steps as fit `--budget` seconds by `mean_step_ms`; all schedules are scaled to them. Its
  clock runs from the end of the first step to the end of the last, and stands while held-out and novel frames are
  evaluated, ten times on the way (`curve`, and the plot). `novel_psnr` and `heldout_psnr` are the last that were
  reached within the budget, `seconds_to_released` is when both were at least what the released code reaches. PSNR as in
  the published tables. Kernels that later steps need first were compiled by the first training; checkpoints are saved
  at the end.
- `frame_ms_540` and `frame_ms_1080`: median over the novel motion, whose every frame needs its own occupied cells;
  named after the height of dev-male's images, and of the same cameras with twice the pixels.
- `renderer_psnr`: the final weights on the novel motion by each renderer, and `renderer_psnr_difference` of the two.
- `first_step_s`: benchmarks/first_step.py.
- `search_ms`, `search_recall`, `field_ms`: benchmarks/kernels_search.py and kernels_field.py at 2^20 and 2^18 points.

What needs a GPU is left out of the JSON without one.
"""

from __future__ import annotations

import copy
import gc
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal
from unittest.mock import patch

import torch
import tyro

from benchmarks import record, training
from benchmarks.first_step import first_step_seconds
from benchmarks.watches import Curve, Profile, Stopwatch, mean_milliseconds, part
from instantavatar_ns.config import instant_avatar, instant_avatar_lite
from instantavatar_ns.metrics import quantise
from instantavatar_ns.pipeline import AvatarPipelineConfig
from instantavatar_ns.scripts.run_folder import write_variant

RELEASED = {"novel_psnr": 27.2, "heldout_psnr": 26.8}
# Seconds, novel and held-out PSNR of the released modules on dev-male, on an H100.
RELEASED_CURVE = [(6, 20.2, 18.1), (10, 26.4, 26.2), (21, 27.4, 26.8), (60, 27.2, 26.8)]
IN_INSTANT = ("step_ms", "frame_ms_540", "frame_ms_1080", "launches", "memory_gb", "seconds_to_released")
METHODS = {spec.config.method_name: spec.config for spec in (instant_avatar, instant_avatar_lite)}
WARM_FRAMES = 3
EvalFrames = list[tuple[Any, torch.Tensor]]  # cameras, and images on white [height, width, 3]


@dataclass
class Speed:
    """Benchmark of training and rendering."""

    subject: Path
    """Folder in InstantAvatar's layout, with a novel/ folder."""
    output: Path = Path("benchmarks/results/speed.json")
    """JSON to write; the plot goes beside it, as a .png."""
    instant: Path | None = None
    """JSON of several benchmarks whose `IN_INSTANT` to renew too."""
    method: Literal["instant-avatar", "instant-avatar-lite"] = "instant-avatar"
    """Method to train."""
    options: str = ""
    """Further options of ns-train, in one string: --options="--pipeline.model.renderer triton"."""
    budget: float = 5.0
    """Seconds of training."""
    steps: int | None = None
    """Steps of the training within the budget; by default what fits it."""
    probe_steps: int = 1500
    """Steps of the training that is timed and traced."""
    runs: Path = Path("outputs/benchmark-speed")
    """Where the runs go."""

    def main(self) -> dict[str, Any]:
        """Measure everything and write the figures, what there is after each part."""
        result = record.head()
        with part("a training that is timed and traced"):
            self._add(result, self.probe())
        with part("the loop with nothing in it"):
            self._add(result, {"loop_ms": self.empty_loop()})
        steps = self.steps or max(2, int(0.95 * self.budget / (result["mean_step_ms"] / 1000)))
        with part(f"a training of {steps} steps and its images"):
            self._add(result, self.train(steps))
        plot(result["curve"], self.budget, self.output.with_suffix(".png"))
        if torch.cuda.is_available():
            with part("images by both renderers"):
                self._add(result, self.compare_renderers())
            with part("kernels of search and field"):
                self._add(result, kernels())
        with part("the first step of a new process"):
            self._add(result, first_step_seconds(self.arguments("first-step", steps)))
        if self.instant is not None:
            record.merge(self.instant, "speed", {name: result[name] for name in IN_INSTANT if name in result})
        return result

    def _add(self, result: dict[str, Any], figures: dict[str, Any]) -> None:
        result.update(figures)
        record.write(self.output, result)
        gc.collect()  # trainers are cycles, and hold all frames

    def arguments(self, name: str, steps: int) -> list[str]:
        """Arguments of ns-train for a run of so many steps, whose schedules are scaled to them."""
        scaled = training.scaled_schedules(METHODS[self.method], steps)
        options = [*scaled, "--steps-per-save", str(steps), *shlex.split(self.options)]
        data_options = ("--eval-set", "novel")
        return training.arguments(
            self.method, self.subject, self.runs, name, steps, *options, data_options=data_options
        )

    def probe(self) -> dict[str, Any]:
        """Train, and look at steps in the middle: how long they take, and what they ask of the GPU."""
        trainer = training.set_up(self.arguments("probe", self.probe_steps))
        interval = trainer.pipeline.model.config.occupancy_interval
        if self.probe_steps < 4 * interval:
            raise SystemExit(f"Expected --probe-steps of at least {4 * interval}, four refreshes of the occupancy.")
        datamanager = trainer.pipeline.datamanager.config
        has_late = datamanager.late_rays_mult > 1
        late = datamanager.late_rays_start if has_late else self.probe_steps
        # Whole intervals, so that the share of refreshes is right; not where schedules change and steps are captured.
        third = self.probe_steps // interval // 3 * interval
        begin, end = third + interval // 2, min(2 * third + interval // 2, late - 3 * interval // 2)
        if end < begin + interval:
            raise SystemExit(f"Expected more --probe-steps, of which enough lie before step {late}.")
        watch = Stopwatch(begin, end)
        late_watch = Stopwatch(late + interval, self.probe_steps - interval) if has_late else None
        several = [Stopwatch(0, end), Stopwatch(end + interval, self.probe_steps - 1)]
        profile = Profile(end, interval) if torch.cuda.is_available() else None
        if profile is not None:
            torch.cuda.reset_peak_memory_stats()
        # Writing the trace takes seconds: the last clock starts behind it.
        for watcher in (watch, several[0], profile, several[1], late_watch):
            if watcher is not None:
                watcher.attach(trainer)
        trainer.train()
        figures: dict[str, Any] = {
            "probe_steps": self.probe_steps,
            "step_ms": watch.milliseconds,
            "mean_step_ms": mean_milliseconds(several),
        }
        if late_watch is not None:
            figures["late_step_ms"] = late_watch.milliseconds
        if profile is not None:
            figures |= {**profile.figures, "kernels": profile.kernels}
            figures["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
            figures["memory_reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9
        return figures

    def empty_loop(self) -> float:
        """Milliseconds a step of nerfstudio's loop alone."""
        trainer = training.set_up(self.arguments("loop", self.probe_steps))
        nothing = torch.zeros((), device=trainer.device)
        trainer.train_iteration = lambda step: (nothing, {}, {})
        watch = Stopwatch(self.probe_steps // 10, self.probe_steps - 1)
        trainer.callbacks = []
        watch.attach(trainer)
        trainer.train()
        return watch.milliseconds

    def train(self, steps: int) -> dict[str, Any]:
        """Train for so many steps, evaluating on the way, and time the rendering of what comes of it."""
        arguments = self.arguments("timed", steps)
        trainer = training.set_up(arguments)
        datamanager = trainer.pipeline.datamanager
        parser = copy.deepcopy(datamanager.dataparser.config)
        parser.eval_set = "heldout"
        heldout = type(datamanager.eval_dataset)(parser.setup().get_dataparser_outputs(split="test"))
        sets = {
            "novel_psnr": load_frames(datamanager.eval_dataset, trainer.device),
            "heldout_psnr": load_frames(heldout, trainer.device),
        }
        model = trainer.pipeline.model
        curve = Curve(steps, lambda: {name: psnr(model, frames) for name, frames in sets.items()})
        curve.attach(trainer)
        trainer.train()
        within = [point for point in curve.points if point["seconds"] <= self.budget] or curve.points[:1]
        released = (p["seconds"] for p in curve.points if all(p[name] >= least for name, least in RELEASED.items()))
        cameras = [camera for camera, _ in sets["novel_psnr"]]
        return {
            "ns_train": shlex.join(["ns-train", *arguments]),
            "steps": steps,
            "train_seconds": curve.points[-1]["seconds"],
            "novel_psnr": within[-1]["novel_psnr"],
            "heldout_psnr": within[-1]["heldout_psnr"],
            "seconds_to_released": next(released, None),
            "frame_pixels": int(cameras[0].width * cameras[0].height),
            "frame_ms_540": frame_milliseconds(model, cameras),
            "frame_ms_1080": frame_milliseconds(model, [enlarged(camera, 2) for camera in cameras]),
            "curve": curve.points,
        }

    def compare_renderers(self) -> dict[str, Any]:
        """The weights of the timed training on the novel motion, rendered by PyTorch and by the kernels."""
        from nerfstudio.utils.eval_utils import eval_setup

        run = self.runs / "timed" / self.method / "run" / "config.yml"
        result = {}
        # nerfacc's extension would be built for a minute and a half, to give the same pixels.
        with (
            patch("instantavatar_ns.rendering.march.nerfacc_cuda", lambda: False),
            patch("instantavatar_ns.rendering.composite.nerfacc_cuda", lambda: False),
        ):
            for renderer in ("torch", "triton"):
                variant = write_variant(run, f"eval/{renderer}", partial(_set_renderer, renderer))
                _, pipeline, _, _ = eval_setup(variant)
                frames = load_frames(pipeline.datamanager.eval_dataset, pipeline.device)
                result[renderer] = psnr(pipeline.model, frames)
                del pipeline
                gc.collect()
        return {"renderer_psnr": result, "renderer_psnr_difference": abs(result["torch"] - result["triton"])}


def _set_renderer(name: Literal["torch", "triton"], pipeline: AvatarPipelineConfig) -> None:
    pipeline.model.renderer = name


def load_frames(dataset: Any, device: str | torch.device) -> EvalFrames:
    """All frames of a dataset on the device, the person on white."""
    from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader

    loader = FixedIndicesEvalDataloader(input_dataset=dataset, device=device)
    return [(camera, batch["image"].to(device)) for camera, batch in loader]


@torch.no_grad()
def psnr(model: Any, frames: EvalFrames) -> float:
    """Mean PSNR of whole images on white, 8-bit; of the model in evaluation, which it is not left in.

    The host waits for what the model needs to know of an image, and for the mean, not for each image's figure.
    """
    model.eval()
    values = []
    for camera, truth in frames:
        rendered = model.get_outputs_for_camera(camera)["rgb"]
        values.append(-10 * torch.log10((quantise(rendered) - quantise(truth)).square().mean()))
    model.train()
    return float(torch.stack(values).mean())


def frame_milliseconds(model: Any, cameras: list[Any]) -> float:
    """Median time of an image whose pose has not been rendered before."""
    model.eval()
    times = []
    for camera in [*cameras[:WARM_FRAMES], *cameras]:
        model.forget_images()
        training.synchronise()
        start = time.perf_counter()
        model.get_outputs_for_camera(camera)
        training.synchronise()
        times.append(1000 * (time.perf_counter() - start))
    return median(times[min(WARM_FRAMES, len(cameras)) :])


def enlarged(camera: Any, factor: int) -> Any:
    """The same camera with more pixels."""
    camera = copy.deepcopy(camera)
    camera.rescale_output_resolution(factor)
    return camera


def kernels() -> dict[str, Any]:
    """Search and field at the sizes that they are judged by."""
    from triton.testing import do_bench

    from benchmarks import kernels_field, kernels_search
    from instantavatar_ns.field.hash_encoding import HashGrid

    def clock(run: Callable[[], Any]) -> float:
        return float(do_bench(run, return_mode="median"))

    search = kernels_search.measure(1 << 20, "cuda", clock, (128, 128, 32))
    names = ("search_ms", "search_recall", "largest_skin_back_m")
    fields = kernels_field.measure(HashGrid(), [1 << 18], "cuda", clock)
    return {
        **{name: search[name] for name in names},
        "field_ms": fields["field_ms"],
        "gradient_error": fields["gradient_error"],
    }


def plot(curve: list[dict[str, float]], budget: float, path: Path) -> None:
    """PSNR against seconds of training, beside what the released code reaches."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    seconds = [point["seconds"] for point in curve]
    there = "released code on dev-male"
    rows = (("novel_psnr", "novel motion", "C0", 1), ("heldout_psnr", "held-out frames", "C1", 2))
    for key, label, color, column in rows:
        axes.plot(seconds, [point[key] for point in curve], "o-", color=color, label=label)
        released = [(row[0], row[column]) for row in RELEASED_CURVE]
        axes.plot(*zip(*released, strict=True), "s--", color=color, alpha=0.5, label=f"{label}, {there}")
        axes.axhline(RELEASED[key], color=color, linewidth=0.8, linestyle=":")
    axes.axvline(budget, color="grey", linewidth=0.8)
    axes.set(xscale="log", xlabel="seconds of training", ylabel="PSNR (dB)")
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)  # inside it would hide points
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    tyro.cli(Speed, description=__doc__).main()
