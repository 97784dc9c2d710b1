"""The benchmark of poses, at a tiny size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.poses import Poses, averages
from instantavatar_ns.scripts.evaluate import Evaluate
from instantavatar_ns.training.fitting import RECIPES
from tests.commands import TINY_TRAINING


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Poses:
    """Of one case, with one seed."""
    monkeypatch.setenv("COMMIT", "0123456789")
    output, runs = tmp_path / "poses.json", tmp_path / "runs"
    return Poses((tmp_path / "subject",), cases=("raw",), seeds=(0,), output=output, runs=runs, options=("--a", "1"))


def test_runs_are_not_made_again_but_for_failed_ones_and_those_of_other_options(
    small: Poses, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def measure(subject: Path, case: str, seed: int) -> dict[str, float]:
        made.append(seed)
        if made == [0]:
            raise RuntimeError("out of memory")
        return {"novel_psnr": 27.0 + seed}

    def figures() -> dict[str, Any]:
        small.main()
        return json.loads(small.output.read_text())["subject.raw"]

    monkeypatch.setattr(small, "measure", measure)
    assert figures() == {"failed": "RuntimeError: out of memory"}
    assert figures() == {"novel_psnr": 27.0, "seeds": 1}
    small.seeds = (0, 1)
    assert figures()["novel_psnr"] == 27.5 and made == [0, 0, 1]
    small.options = ("--a", "2")
    assert figures()["seeds"] == 2 and made == [0, 0, 1, 0, 1]


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras
def test_figures_are_those_of_the_commands(
    small: Poses, demo_subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "fast", replace(RECIPES["fast"], steps_per_frame=1, num_rays=64))
    small.subjects, small.method, small.steps = (demo_subject,), "instant-avatar-lite", 6
    small.options = tuple(TINY_TRAINING)
    small.main()
    figures = json.loads(small.output.read_text())["subject.raw"]
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


def test_several_seeds_are_averaged_and_failures_left_out() -> None:
    runs = [{"novel_psnr": 27.0, "lpips": 0.2}, {"failed": "out of memory"}, {"novel_psnr": 29.0, "lpips": 0.4}]
    assert averages(runs) == pytest.approx({"novel_psnr": 28.0, "lpips": 0.3, "novel_psnr_spread": 2**0.5, "seeds": 2})
    assert averages(runs[1:2]) == {"failed": "out of memory"}
