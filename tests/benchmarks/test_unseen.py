"""The benchmark of unseen parts: which runs it makes, and in which order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from benchmarks import unseen
from benchmarks.unseen import Unseen, eight_sides
from tests.tiny import build_body


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unseen:
    monkeypatch.setenv("COMMIT", "0123456789")
    monkeypatch.setattr(unseen, "front_clip", lambda subject, folder, degrees: folder)
    turning = (tmp_path / "male", tmp_path / "female")
    output, runs = tmp_path / "unseen.json", tmp_path / "runs"
    return Unseen(tmp_path / "moving", turning, output=output, runs=runs, seeds=(0, 1, 2))


def test_what_matters_most_comes_first(small: Unseen) -> None:
    jobs = [f"{folder.name}.{variant}.{seed}" for folder, variant, seed in small.jobs()]
    assert len(set(jobs)) == len(jobs) == 3 * 5 + 2 * 4 + 5
    assert jobs[:5] == [
        *(f"moving.{name}.0" for name in ("refined", "raw", "before")),
        *(f"male-front.{name}.0" for name in ("refined", "before")),
    ]
    assert jobs.index("female.all.0") < jobs.index("moving.no_color.0") < jobs.index("moving.refined.1")
    assert not any("wild" in job for job in jobs)
    small.vgg_backbone = Path("vgg16.pth")
    assert "moving.wild.0" in [f"{folder.name}.{variant}.{seed}" for folder, variant, seed in small.jobs()]


def test_runs_are_not_made_again_and_averaged(small: Unseen, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def measure(folder: Path, variant: str, seed: int) -> dict[str, Any]:
        made.append((folder.name, variant, seed))
        if len(made) == 2:
            raise RuntimeError("out of memory")
        return {"novel_psnr": 26.0 + seed}

    monkeypatch.setattr(small, "measure", measure)
    small.main()
    first = len(made)
    small.main()
    assert made[first:] == [made[1]], "only what failed"
    result = json.loads(small.output.read_text())
    assert result["moving"]["refined"]["novel_psnr"] == 27.0 and result["moving"]["refined"]["seeds"] == 3
    assert result["moving"]["no_color"]["seeds"] == 1 and result["male"]["all"]["seeds"] == 2


def test_eight_sides_show_the_whole_person_eight_times(outputs: DataparserOutputs) -> None:
    picture = eight_sides(build_body(outputs), size=64)
    height, width, _ = picture.shape
    assert height == 64 and width % 8 == 0
    for side in np.split(picture, 8, axis=1):
        assert (side < 128).any() and (side[[0, -1]] == 255).all()
