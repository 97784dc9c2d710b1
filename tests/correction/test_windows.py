"""Windows over time: they cover every frame, stay small, and their parts join to the whole."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from instantavatar_ns.correction.refinement import spline_basis
from instantavatar_ns.correction.windows import blend, spread_evenly, windows

RECORDINGS = {
    "a turn": torch.arange(100.0),
    "long": torch.arange(800.0),
    "every fourth frame": torch.arange(0.0, 800.0, 4.0),
    "a gap": torch.cat([torch.arange(150.0), torch.arange(700.0, 850.0)]),
    "one frame": torch.zeros(1),
}


@pytest.mark.parametrize("times", RECORDINGS.values(), ids=RECORDINGS)
def test_windows_cover_all_frames_and_the_knots_that_they_need(times: Tensor) -> None:
    basis = spline_basis(times, 8.0)
    parts, cells = windows(basis)
    for spans in (parts, cells):
        assert torch.cat([torch.arange(len(times))[span.frames] for span in spans]).unique().tolist() == [
            *range(len(times))
        ]
        for frames, knots in spans:
            torch.testing.assert_close(basis[frames, knots].sum(dim=1), torch.ones(frames.stop - frames.start))
    for one, following in pairwise(cells):
        assert one.frames.stop == following.frames.start
    for part in parts:
        inside = [cell for cell in cells if cell.within(part)]
        assert (inside[0].frames.start, inside[-1].frames.stop) == (part.frames.start, part.frames.stop)


def test_a_short_recording_is_one_window_and_a_long_one_has_many_of_bounded_size() -> None:
    assert len(windows(spline_basis(torch.arange(132.0), 8.0))[0]) == 1
    for frames in (140, 400, 3000):
        parts = windows(spline_basis(torch.arange(float(frames)), 8.0))[0]
        assert all(part.frames.stop - part.frames.start < 140 for part in parts)
        assert all(one.frames.stop - following.frames.start >= 30 for one, following in pairwise(parts))
        assert len(parts) < 1 + frames / 80


def test_parts_of_a_sequence_join_to_it_without_a_step() -> None:
    sequence = torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    places = [slice(0, 6), slice(3, 10)]
    torch.testing.assert_close(blend([sequence[place] for place in places], places, 10), sequence)
    joined = blend([torch.zeros(6, 1), torch.ones(7, 1)], places, 12)[:, 0]
    torch.testing.assert_close(joined, torch.tensor([0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 0, 0]))


def test_numbers_are_spread_evenly() -> None:
    assert spread_evenly(9, 3) == [0, 4, 8]
    assert spread_evenly(2, 3) == [0, 1]
    assert spread_evenly(5, 1) == [0]
