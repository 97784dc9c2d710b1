"""The benchmark of poses, at a tiny size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.poses import Poses, averages
from instantavatar_ns.scripts.evaluate import Evaluate
from instantavatar_ns.training.fitting import RECIPES

SMALL = {
    "pipeline.datamanager.train-num-rays-per-batch": "128",
    "pipeline.model.implementation": "torch",
    "pipeline.model.hash-levels": "4",
    "pipeline.model.skinning-resolution": "32 32 8",
    "pipeline.model.step-size": "0.08",
    "pipeline.model.occupancy-warmup": "4",
    "pipeline.model.pose-start": "2",
}


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras
def test_figures_are_those_of_the_commands_and_not_made_again(
    demo_subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMIT", "0123456789")
    monkeypatch.setitem(RECIPES, "fast", replace(RECIPES["fast"], steps_per_frame=1, num_rays=64))
    output = tmp_path / "poses.json"
    benchmark = Poses(
        subjects=(demo_subject,),
        cases=("raw",),
        method="instant-avatar-lite",
        output=output,
        runs=tmp_path / "runs",
        steps=6,
        options=tuple(part for name, value in SMALL.items() for part in (f"--{name}", *value.split())),
    )
    benchmark.main()
    figures = json.loads(output.read_text())["subject.raw"]
    assert figures["seeds"] == 1 and "novel_psnr_spread" not in figures
    assert figures["fit_frames"] == 3 and figures["fit_seconds"] > 0 and figures["steps"] == 6
    assert figures["pose_error_deg_before"] > 1 and figures["pose_error_deg_after"] > 1
    # The estimated poses of the demo are 8 mm off along each axis, besides their rotations.
    assert 10 < figures["joint_error_mm_before"] < 60 and 1 < figures["joint_error_mm_after"] < 60

    config = tmp_path / "runs" / "subject.raw.0" / "instant-avatar-lite" / "run" / "config.yml"
    stock = Evaluate(load_config=config, heldout_poses="truth", output_dir=tmp_path / "eval").main()
    assert figures["novel_psnr"] == pytest.approx(stock["novel"]["psnr"], abs=1e-3)
    assert figures["heldout_exact_psnr"] == pytest.approx(stock["heldout"]["psnr"], abs=1e-3)
    assert figures["ssim"] == pytest.approx(stock["heldout"]["ssim"], abs=1e-4)
    assert figures["heldout_given_psnr"] != pytest.approx(figures["heldout_exact_psnr"], abs=1e-3)

    monkeypatch.setattr(benchmark, "measure", lambda *_: pytest.fail("made again"))
    benchmark.main()
    assert json.loads(output.read_text())["subject.raw"] == figures


def test_several_seeds_are_averaged_and_failures_left_out() -> None:
    runs = [{"novel_psnr": 27.0, "lpips": 0.2}, {"failed": "out of memory"}, {"novel_psnr": 29.0, "lpips": 0.4}]
    assert averages(runs) == pytest.approx({"novel_psnr": 28.0, "lpips": 0.3, "novel_psnr_spread": 2**0.5, "seeds": 2})
    assert averages(runs[1:2]) == {"failed": "out of memory"}
