"""Split of a recording's frames into those that train the avatar and those that measure it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice

FrameRange = tuple[int, int, int]
"""Start, end (not included) and step, as Python's `range`."""

_SPLIT_ADVICE = 'Write {"train": [0, 100], "test": [100, 130]}, ends not included'

PUBLISHED_SPLITS = Path(__file__).with_name("people_snapshot_splits.json")


@dataclass(frozen=True)
class FrameSplit:
    """Frame numbers of a recording, in time order."""

    train: Sequence[int]
    test: Sequence[int]


def published_split(subject: str) -> FrameSplit | None:
    """The split that papers since Anim-NeRF use for a PeopleSnapshot subject; None for other subjects."""
    entry = json.loads(PUBLISHED_SPLITS.read_text()).get(subject)
    return FrameSplit(range(*entry["train"]), range(*entry["test"])) if entry else None


def choose_split(
    data: Path, num_frames: int, train_frames: FrameRange | None = None, test_frames: FrameRange | None = None
) -> FrameSplit:
    """Choose the frames: as given, else as `subject.json` says, else as published, else the last fifth is held out.

    Args:
        data: The recording's folder; its name tells a PeopleSnapshot subject, its `subject.json` may hold `train` and
            `test` as [start, end] or [start, end, step], end not included, or as {"frames": [numbers]}.
        num_frames: Frames in the recording.
        train_frames: The user's choice of training frames.
        test_frames: The user's choice of held-out frames.

    Raises:
        InputError: A range is empty or leaves the recording.
    """
    first_held_out = num_frames - max(num_frames // 5, 1) if num_frames > 1 else num_frames
    fallback = FrameSplit(range(first_held_out), range(first_held_out, num_frames) or range(num_frames))
    own = _subject_split(data / "subject.json")
    split = own or published_split(data.resolve().name) or fallback
    split = FrameSplit(
        range(*train_frames) if train_frames else split.train, range(*test_frames) if test_frames else split.test
    )
    for name, frames, option in (("training", split.train, train_frames), ("held-out", split.test, test_frames)):
        ascending = all(a < b for a, b in pairwise(frames))
        if len(frames) == 0 or not ascending or frames[0] < 0 or frames[-1] >= num_frames:
            wanted = "a list that is empty, does not ascend or leaves them"
            if isinstance(frames, range):
                wanted = f"{frames.start} to {frames.stop} (not included) in steps of {frames.step}"
            message = f"expected {name} frames within the {num_frames} frames found, asked for {wanted}"
            advice = "Set train_frames and test_frames to ranges that the recording has"
            if own and not option:
                raise InputError(data / "subject.json", message, f"Correct it, or {advice[0].lower()}{advice[1:]}")
            raise InputError(data, message, advice)
    shared = len(set(split.train) & set(split.test))
    if shared:
        text = (
            f"{shared} of {len(split.test)} held-out frames are training frames too; their figures do not say how well "
            "frames are rendered that the avatar was not trained on."
        )
        notice(data, text)
    return split


def _subject_split(path: Path) -> FrameSplit | None:
    if not path.is_file():
        return None
    try:
        entry = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
        if not isinstance(entry, dict):
            raise _NoRangeError(f"found {_kind(entry)} in place of an object with train and test")
        if "train" not in entry and "test" not in entry:
            return None
        train, test = (_frame_range(key, entry) for key in ("train", "test"))
    except _NoRangeError as error:
        raise InputError(path, f"expected train and test frame ranges, {error}", _SPLIT_ADVICE) from error
    except json.JSONDecodeError as error:
        message = f"expected JSON with train and test frame ranges, cannot read line {error.lineno} ({error.msg})"
        raise InputError(path, message, _SPLIT_ADVICE) from error
    except (ValueError, RecursionError) as error:
        raise InputError(path, "expected JSON with train and test frame ranges, found none", _SPLIT_ADVICE) from error
    return FrameSplit(train, test)


class _NoRangeError(Exception):
    """Words for what was found in place of a range of frames, as the end of a sentence."""


def _frame_range(name: str, entry: dict[str, Any]) -> Sequence[int]:
    if name not in entry:
        raise _NoRangeError(f"found no {name}")
    numbers = entry[name]
    if isinstance(numbers, dict):
        numbers = numbers.get("frames")
        if not isinstance(numbers, list) or not all(type(n) is int for n in numbers):
            raise _NoRangeError(f"found frames of {name} that are {_kind(numbers)}, not a list of whole numbers")
        return numbers
    if not isinstance(numbers, list):
        raise _NoRangeError(f"found {name} that is {_kind(numbers)}, not [start, end] or [start, end, step]")
    if len(numbers) not in (2, 3) or not all(type(n) is int for n in numbers):
        raise _NoRangeError(f"found {name} {numbers}, not [start, end] or [start, end, step] in whole numbers")
    if numbers[2:] == [0]:
        raise _NoRangeError(f"found {name} {numbers}, whose step is 0")
    return range(*numbers)


def _kind(value: Any) -> str:
    """A value of a JSON file in words; a list of anything but whole numbers as it is."""
    if value is None:
        return "null"
    if isinstance(value, (list, dict)):
        return f"{'the list' if isinstance(value, list) else 'the object'} {str(value)[:60]}"
    return f"the {'text' if isinstance(value, str) else 'value'} {str(value)[:60]}"
