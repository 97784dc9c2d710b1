"""The demo that starts from the clip that comes with the package."""

import json
from pathlib import Path

import pytest

from instantavatar_ns.scripts.demo import CLIP, Demo


def test_the_clip_is_small() -> None:
    assert CLIP.stat().st_size < 1e6


@pytest.mark.nightly  # minutes: the network, the fit, a training and its film
def test_an_avatar_of_the_clip(tmp_path: Path) -> None:
    Demo(tmp_path, size=100, steps=300, clip=True).main()
    folder = tmp_path / "clip"
    heldout = json.loads((folder / "eval" / "heldout.json").read_text())
    assert heldout["results"]["psnr"] > 20
    for name in ("comparison.png", "novel_pose.mp4", "avatar.html", "data/process/report.html"):
        assert (folder / name).stat().st_size > 1000, name
