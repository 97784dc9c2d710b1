"""People in a picture, found with the pose network alone, and one of them followed through a clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from instantavatar_ns.process.network import PoseNetwork, Prediction, Square

_PRESENT, _SURELY_PRESENT = 0.5, 0.9  # presence of the person looked for, and of others beside them
_MOST_PEOPLE = 4
_MAYBE = -2.0  # log-odds from which on a pixel may be of a person
_LOOKS = 4  # for a square to settle on a person
_SAME = 0.35  # of a square's side: nearer than that to each other, two squares show the same person
_SMALLEST_SHARE = 0.25  # of the largest person's size, for another one to be told of
_FEWEST_SEEN, _SEEN = 12, 0.5  # landmarks inside the picture and visible, for something to be a person
# How far from where a person was lost somebody may be to be the same, of the square's side: in the next frame, for each
# one more, at most; and how much larger or smaller their square may be.
_NEAR, _FARTHER, _FARTHEST, _OTHER_SIZE = 0.25, 0.03, 0.6, 1.6


@dataclass(frozen=True)
class Person:
    """Somebody in a picture.

    Attributes:
        prediction: The network's view of them.
    """

    prediction: Prediction

    @property
    def size(self) -> float:
        """Side of the person's square, pixels."""
        return self.prediction.next_square.side


def find_people(
    network: PoseNetwork, image: UInt8[np.ndarray, "height width 3"], most: int = _MOST_PEOPLE
) -> list[Person]:
    """Find people, the largest first; smaller ones than a quarter of the picture's shorter side are not searched for.

    The network shows one person a square. Squares are laid over the picture, and each moves to the person that the
    network sees in it. Who is found is painted over, so that the next search finds others.

    Args:
        network: The pose network.
        image: The picture, RGB.
        most: People after whom the search ends.
    """
    people: list[Person] = []
    while len(people) < most:
        found = _search(network, image, people)
        if not found:
            break
        people += found
        for person in found:
            image = _painted_over(image, person)
    people.sort(key=lambda person: -person.size)
    return [person for person in people if person.size >= _SMALLEST_SHARE * people[0].size][:most]


def _search(network: PoseNetwork, image: UInt8[np.ndarray, "height width 3"], known: list[Person]) -> list[Person]:
    """Find people that are not known yet; smaller squares are laid where larger ones show nobody."""
    height, width = image.shape[:2]
    for scale in (0.5,) if known else (1.0, 0.5):
        found: list[Person] = []
        for square in _starts(height, width, scale):
            person = _settle(network, image, square)
            if person is None or any(_is_same(person, other) for other in [*known, *found]):
                continue
            if not known or person.prediction.presence >= _SURELY_PRESENT:
                found.append(person)
        if found:
            return found
    return []


def _painted_over(image: UInt8[np.ndarray, "height width 3"], person: Person) -> UInt8[np.ndarray, "height width 3"]:
    """Replace a person by the colors around, without an edge that would look like a person."""
    height, width = image.shape[:2]
    hidden = (person.prediction.mask_in(height, width) > _MAYBE).astype(np.uint8)
    reach = 2 * max(round(0.02 * person.size), 1) + 1
    hidden = cv2.dilate(hidden, np.ones((reach, reach), np.uint8))
    if hidden.all():
        return np.zeros_like(image)
    shown = (1 - hidden).astype(np.float32)
    scale = 64 / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    weights = cv2.resize(shown, size, interpolation=cv2.INTER_AREA)
    colors = cv2.resize(image * shown[..., None], size, interpolation=cv2.INTER_AREA)
    weights, colors = (cv2.GaussianBlur(values, (0, 0), 5) for values in (weights, colors))
    fill = cv2.resize(colors / np.maximum(weights, 1e-3)[..., None], (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(hidden[..., None] > 0, fill.clip(0, 255).astype(np.uint8), image)


class Follower:
    """One person, followed from frame to frame: the largest of the first frame in which somebody is found.

    Who is lost is searched for in the whole picture. Of several people only somebody near the place where the person
    was lost is taken for them; somebody who is elsewhere is another one.

    Args:
        network: The pose network.
    """

    def __init__(self, network: PoseNetwork) -> None:
        self._network = network
        self._last: Square | None = None  # where the person is expected, of the last frame in which they were seen
        self._frames_lost = 0
        self._people = 0  # the most that were seen in a frame

    def look(self, image: UInt8[np.ndarray, "height width 3"], count: bool = False) -> tuple[Prediction | None, int]:
        """Look at the next frame; `take` must be told of what is found.

        Args:
            image: The frame.
            count: Look for others than the person, too.

        Returns:
            The network's view of the person, None where they are not found; and how many people were seen, as far as
            they were looked for.
        """
        prediction = None
        if self._last is not None and not self._frames_lost:
            prediction = self._seen_in(image, self._last)
            if prediction is not None and not count:
                return prediction, 1
        people = find_people(self._network, image, _MOST_PEOPLE if prediction is None else 2)
        self._people = max(self._people, len(people))
        if prediction is None:
            person = next(iter(people), None) if self._last is None else self._same(people)
            if person is not None:  # the search looked quickly
                prediction = self._seen_in(image, person.prediction.next_square) or person.prediction
        return prediction, max(len(people), int(prediction is not None))

    def _seen_in(self, image: UInt8[np.ndarray, "height width 3"], square: Square) -> Prediction | None:
        prediction = self._network(image, square)
        return prediction if _is_person(prediction, image.shape[:2]) else None

    def take(self, prediction: Prediction | None, people: int) -> None:
        """Go on from what a frame showed, now or in a run that was interrupted.

        Args:
            prediction: The network's view of the person, None where they were not found.
            people: How many were seen.
        """
        self._people = max(self._people, people)
        self._frames_lost = 0 if prediction is not None else self._frames_lost + 1
        self._last = self._last if prediction is None else prediction.next_square

    def _same(self, people: list[Person]) -> Person | None:
        """Of the people of a frame the one that was lost."""
        last = self._last
        assert last is not None
        reach = last.side * min(_NEAR + _FARTHER * self._frames_lost, _FARTHEST)
        near = [
            (distance, index)
            for index, person in enumerate(people)
            if (distance := _distance(person.prediction.next_square, last)) < reach
            and max(person.size / last.side, last.side / person.size) < _OTHER_SIZE
        ]
        if near:
            return people[min(near)[1]]
        return people[0] if len(people) == 1 and self._people == 1 else None


def _settle(network: PoseNetwork, image: UInt8[np.ndarray, "height width 3"], square: Square) -> Person | None:
    """Let a square move to the person that the network sees in it; None where it sees nobody."""
    prediction = None
    for _ in range(_LOOKS):
        prediction = network(image, square, quick=True)
        if prediction.presence < _PRESENT:
            return None
        before, square = square, prediction.next_square
        moved = np.hypot(square.center[0] - before.center[0], square.center[1] - before.center[1])
        if moved < 0.02 * square.side and abs(square.side / before.side - 1) < 0.05:
            break
    return Person(prediction) if prediction is not None and _is_person(prediction, image.shape[:2]) else None


def _is_person(prediction: Prediction, size: tuple[int, ...]) -> bool:
    pixels = prediction.pixels
    inside = ((pixels >= 0) & (pixels < np.array([size[1], size[0]]))).all(axis=1)
    return prediction.presence >= _PRESENT and int((inside & (prediction.visibility > _SEEN)).sum()) >= _FEWEST_SEEN


def _is_same(person: Person, other: Person) -> bool:
    a, b = (one.prediction.next_square for one in (person, other))
    return _distance(a, b) < _SAME * min(a.side, b.side)


def _distance(square: Square, other: Square) -> float:
    """Distance between the middles, pixels."""
    return float(np.hypot(square.center[0] - other.center[0], square.center[1] - other.center[1]))


def _starts(height: int, width: int, scale: float) -> Iterator[Square]:
    if scale == 1.0:
        yield Square.of_image(height, width)
    side = scale * min(height, width)
    rows, columns = (_middles(length, side) for length in (height, width))
    if scale < 1.0 or len(rows) * len(columns) > 1:
        for row in rows:
            for column in columns:
                yield Square((column, row), side)


def _middles(length: int, side: float) -> list[float]:
    """Middles of squares that cover a length and overlap by about half."""
    count = 1 + int(np.ceil((length - side) / (0.5 * side) - 1e-6))
    return np.linspace(side / 2, length - side / 2, count).tolist() if count > 1 else [length / 2]
