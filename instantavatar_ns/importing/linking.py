"""People of single images, linked to tracks over the frames by their places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

_REACH = 0.5
"""Metres at the person by which somebody moves sideways from one frame to the next, at most."""
_LONGEST_LOSS = 15
"""Frames after which a person who is gone is not linked any more."""


def link_people(frames: Sequence[int], places: Sequence[Float[ndarray, "_ 3"]]) -> list[list[tuple[int, int]]]:
    """Link people of neighbouring frames who are next to each other, the nearest first.

    Args:
        frames: Number of each image, ascending.
        places: Of the people in each image, in any order: x and y in pixels, and the pixels of a metre there.

    Returns:
        Tracks of (place in `frames`, place among the image's people), the longest first.
    """
    tracks: list[list[tuple[int, int]]] = []
    for row, (frame, people) in enumerate(zip(frames, places, strict=True)):
        near = []
        for index, track in enumerate(tracks):
            last_row, last_person = track[-1]
            gap = frame - frames[last_row]
            if gap > _LONGEST_LOSS:
                continue
            last = places[last_row][last_person]
            for person, place in enumerate(people):
                meters = np.linalg.norm(place[:2] - last[:2]) / max(float(last[2]), 1e-9)
                if meters < _REACH * max(gap, 1) ** 0.5:
                    near.append((float(meters), index, person))
        taken_tracks: set[int] = set()
        taken_people: set[int] = set()
        for _, index, person in sorted(near):
            if index not in taken_tracks and person not in taken_people:
                tracks[index].append((row, person))
                taken_tracks.add(index)
                taken_people.add(person)
        tracks += [[(row, person)] for person in range(len(people)) if person not in taken_people]
    return sorted(tracks, key=len, reverse=True)
