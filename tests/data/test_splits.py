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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("null", "expected train and test frame ranges, found null in place of an object with train and test"),
        ("[1, 2]", r"found the list \[1, 2\] in place of"),
        ('{"train": [0, 5, 0], "test": [5, 8]}', r"found train \[0, 5, 0\], whose step is 0"),
        ('{"train": null, "test": [5, 8]}', r"found train that is null, not \[start, end\]"),
        ('{"train": {"frames": null}, "test": [5, 8]}', "found frames of train that are null"),
        ('{"train": [0, 5]}', "found no test"),
        ('{"train": [0, 5.5], "test": [6, 8]}', r"found train \[0, 5\.5\], not .* in whole numbers"),
        ('{\n"train": [0', r"cannot read line 2 \("),
    ],
)
def test_what_is_no_split_is_told_in_a_sentence(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "subject.json").write_text(content)
    with pytest.raises(InputError, match=rf"subject\.json: .*{message}") as error:
        choose_split(tmp_path, 8)
    assert "Error" not in str(error.value) and "arg 3" not in str(error.value)
