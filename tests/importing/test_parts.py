"""Run lengths of masks, people linked over frames, cameras solved from points."""

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from instantavatar_ns.importing.linking import link_people
from instantavatar_ns.importing.run_lengths import decode_run_lengths
from instantavatar_ns.importing.tools.nlf import solve_pinhole
from instantavatar_ns.utils.errors import InputError

FILE = Path("result.pkl")


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_run_lengths_as_pycocotools_writes_them(density):
    random = np.random.default_rng(0)
    mask = np.asfortranarray((random.random((70, 90)) < density).astype(np.uint8))
    encoded = coco.encode(mask)
    np.testing.assert_array_equal(decode_run_lengths(FILE, encoded), mask)
    as_read = {"size": np.array([70, 90]), "counts": np.asarray(encoded["counts"])}
    np.testing.assert_array_equal(decode_run_lengths(FILE, as_read), mask)
    as_text = {"size": [70, 90], "counts": encoded["counts"].decode()}
    np.testing.assert_array_equal(decode_run_lengths(FILE, as_text), mask)


def test_run_lengths_as_numbers():
    mask = decode_run_lengths(FILE, {"size": [2, 3], "counts": [1, 2, 3]})
    np.testing.assert_array_equal(mask, [[0, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize("counts", [[1, 2], [7], [-1, 7], b"Z", b""])
def test_run_lengths_that_do_not_fill_the_mask(counts):
    with pytest.raises(InputError, match="expected runs that fill a mask of 2 x 3 pixels"):
        decode_run_lengths(FILE, {"size": [2, 3], "counts": counts})


def test_people_are_linked_whatever_their_order():
    """One walks past another; a third is seen for two frames."""
    random = np.random.default_rng(0)
    frames = list(range(20))
    truth, places = [], []
    for frame in frames:
        people = {"walks": [100 + 10 * frame, 50, 100], "stands": [200, 120, 100]}
        if frame in (4, 5):
            people["passes"] = [400, 60, 80]
        if frame == 9:
            del people["walks"]
        names = random.permutation(list(people)).tolist()
        truth.append(names)
        places.append(np.array([people[name] for name in names], float))
    tracks = link_people(frames, places)
    named = [[truth[row][person] for row, person in track] for track in tracks]
    assert [set(names) for names in named] == [{"stands"}, {"walks"}, {"passes"}]
    assert [len(names) for names in named] == [20, 19, 2]


def test_camera_from_points():
    random = np.random.default_rng(0)
    points = random.normal(size=(40, 3)) * [0.5, 0.8, 0.3] + [0.2, 0, 4]
    matrix = np.array([[900.0, 0, 511], [0, 900.0, 380], [0, 0, 1]])
    pixels = points @ matrix.T
    np.testing.assert_allclose(solve_pinhole(points, pixels[:, :2] / pixels[:, 2:]), matrix, rtol=1e-9, atol=1e-9)
