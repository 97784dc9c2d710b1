"""Splits given as lists of frames; ranges are tested with the data parsers."""

import json
from pathlib import Path

import pytest

from instantavatar_ns.data.splits import choose_split
from instantavatar_ns.utils.errors import InputError


def test_frames_in_between_can_be_held_out(tmp_path: Path) -> None:
    split = {"train": {"frames": [0, 1, 3, 4]}, "test": {"frames": [2]}}
    (tmp_path / "subject.json").write_text(json.dumps(split))
    found = choose_split(tmp_path, 5)
    assert (list(found.train), list(found.test)) == ([0, 1, 3, 4], [2])


@pytest.mark.parametrize("frames", [[], [0, 7], [-1, 2], [3, 1], [1, 1], [0.5, 1], "all"])
def test_lists_that_cannot_be_right_are_told(tmp_path: Path, frames: object) -> None:
    split = {"train": {"frames": frames}, "test": {"frames": [2]}}
    (tmp_path / "subject.json").write_text(json.dumps(split))
    with pytest.raises(InputError, match=r"subject\.json"):
        choose_split(tmp_path, 5)
