"""Cameras of `cameras.npz`: shapes that are completed, and matrices that cannot be right."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from instantavatar_ns.data.cameras import read_cameras
from instantavatar_ns.utils.errors import InputError

FRAMES, HEIGHT, WIDTH = 5, 48, 36
INTRINSIC = np.array([[90.0, 0.0, 17.0], [0.0, 80.0, 25.0], [0.0, 0.0, 1.0]])
EXTRINSIC = np.eye(4)
EXTRINSIC[:3, :3] = Rotation.from_rotvec([0.3, -1.1, 0.4]).as_matrix()
EXTRINSIC[:3, 3] = 0.1, -0.2, 3.0


def read(folder, **changes):
    arrays = {"intrinsic": INTRINSIC, "extrinsic": EXTRINSIC, "height": HEIGHT, "width": WIDTH, **changes}
    np.savez(folder / "cameras.npz", **arrays)
    return read_cameras(folder / "cameras.npz", FRAMES)


def each_frame(matrix, frame=None, changed=None):
    """The matrix for every frame, but for one of them."""
    matrices = np.repeat(matrix[None], FRAMES, axis=0)
    if frame is not None:
        matrices[frame] = changed
    return matrices


def padded(matrix):
    result = np.eye(4)
    result[:3, :3] = matrix
    return result


RIGHT = {
    "one for all": {},
    "one a frame": {"intrinsic": each_frame(INTRINSIC), "extrinsic": each_frame(EXTRINSIC)},
    "a stack of one": {"intrinsic": INTRINSIC[None], "extrinsic": EXTRINSIC[None]},
    "three rows": {"extrinsic": EXTRINSIC[:3]},
    "three rows a frame": {"extrinsic": each_frame(EXTRINSIC[:3])},
    "intrinsic of four rows": {"intrinsic": padded(INTRINSIC)},
    "intrinsic of four rows a frame": {"intrinsic": each_frame(padded(INTRINSIC))},
    "single precision": {"intrinsic": INTRINSIC.astype(np.float32), "extrinsic": EXTRINSIC.astype(np.float32)},
    "rounded": {"extrinsic": EXTRINSIC.round(3)},
    "size as an array": {"height": np.array([HEIGHT]), "width": np.float64(WIDTH)},
}


@pytest.mark.parametrize("changes", RIGHT.values(), ids=RIGHT.keys())
def test_right_cameras(tmp_path, changes):
    height, width, intrinsics, extrinsics = read(tmp_path, **changes)
    assert (height, width) == (HEIGHT, WIDTH)
    assert intrinsics.shape == (FRAMES, 3, 3) and extrinsics.shape == (FRAMES, 4, 4)
    np.testing.assert_allclose(intrinsics, each_frame(INTRINSIC), rtol=1e-6)
    np.testing.assert_allclose(extrinsics, each_frame(EXTRINSIC), atol=5e-4)


def scaled(*factors):
    """The intrinsic with its rows multiplied."""
    return INTRINSIC * np.array(factors)[:, None]


def rotated(rotation):
    matrix = EXTRINSIC.copy()
    matrix[:3, :3] = rotation
    return matrix


def changed(row, column, value):
    matrix = INTRINSIC.copy()
    matrix[row, column] = value
    return matrix


FLIPPED = np.diag([1.0, -1.0, 1.0]) @ EXTRINSIC[:3, :3]
SHEARED = EXTRINSIC[:3, :3] @ np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1]])
FLAT = EXTRINSIC[:3, :3] @ np.diag([1.0, 1.0, 0.0])
WRONG = {
    "transposed": ({"extrinsic": EXTRINSIC.T}, r"extrinsic with the last row \(0, 0, 0, 1\).*transposed.*Transpose it"),
    "transposed, one a frame": (
        {"extrinsic": each_frame(EXTRINSIC, 3, EXTRINSIC.T)},
        r"extrinsic of frame 3 with the last row .*transposed",
    ),
    "another last row": ({"extrinsic": EXTRINSIC + np.diag([0, 0, 0, 1])}, r"last row .* found \(0, 0, 0, 2\)\. Write"),
    "zeros": ({"extrinsic": np.zeros((4, 4))}, "nothing but zeros"),
    "scaled": ({"extrinsic": rotated(1.3 * EXTRINSIC[:3, :3])}, "the scale 1.3. Divide its first three rows by 1.3"),
    "mirrored": ({"extrinsic": rotated(FLIPPED)}, "mirrored one"),
    "mirrored in a frame": ({"extrinsic": each_frame(EXTRINSIC, 1, rotated(FLIPPED))}, "of frame 1 .*mirrored one"),
    "sheared": ({"extrinsic": rotated(SHEARED)}, "not orthonormal"),
    "singular": ({"extrinsic": rotated(FLAT)}, "without inverse"),
    "another number of frames": (
        {"extrinsic": each_frame(EXTRINSIC)[:3]},
        r"extrinsic of shape \(4, 4\) or \(5, 4, 4\), found \(3, 4, 4\)",
    ),
    "a rotation alone": ({"extrinsic": EXTRINSIC[:3, :3]}, r"extrinsic of shape .*found \(3, 3\)"),
    "NaN in a frame": ({"extrinsic": each_frame(EXTRINSIC, 2, np.nan)}, "NaN or infinity in extrinsic of frame 2"),
    "complex": ({"extrinsic": EXTRINSIC.astype(complex)}, "of real numbers, found the type complex"),
    "text": ({"intrinsic": INTRINSIC.astype(str)}, "of real numbers, found the type <U"),
    "intrinsic transposed": ({"intrinsic": INTRINSIC.T}, r"intrinsic with the last row \(0, 0, 1\).*transposed"),
    "projection matrix": ({"intrinsic": padded(INTRINSIC)[[0, 1, 3, 2]]}, "not a projection matrix"),
    "no focal length": ({"intrinsic": changed(0, 0, 0.0)}, "positive focal lengths, found fx 0 and fy 80"),
    "negative focal length": ({"intrinsic": changed(1, 1, -80.0)}, "positive focal lengths, found fx 90 and fy -80"),
    "inverted": ({"intrinsic": np.linalg.inv(scaled(1, 1, 1))}, "found the inverse of such a matrix"),
    "normalised": ({"intrinsic": scaled(1 / WIDTH, 1 / HEIGHT, 1)}, "in pixels, found focal lengths of 2.5 and 1.66"),
    "skew": ({"intrinsic": changed(0, 1, 2.0)}, "without skew"),
    "other resolution": ({"intrinsic": scaled(2.5, 2.5, 1)}, "cx 42.5 and cy 62.5, as for images 2.5 times as large"),
    "twice the size": (
        {"intrinsic": np.array([[180, 0, 35.0], [0, 160, 47.0], [0, 0, 1]])},
        "cx 35 and cy 47, as for images 2 times as large",
    ),
    "no principal point": ({"intrinsic": np.diag([90.0, 80.0, 1.0])}, "principal point within .* cx 0 and cy 0\\."),
    "principal point far off": ({"intrinsic": changed(0, 2, -900.0)}, "principal point within .* cx -900 and cy 25\\."),
    "vector": ({"intrinsic": np.array([90.0, 80, 17, 25])}, r"intrinsic of shape \(3, 3\).*found \(4,\)"),
    "height a frame": ({"height": np.full(FRAMES, HEIGHT)}, r"expected one height, found 5 numbers"),
    "empty width": ({"width": np.zeros(0)}, "expected one width, found 0 numbers"),
    "NaN height": ({"height": np.nan}, "height in whole pixels, found nan"),
    "infinite height": ({"height": np.inf}, "height in whole pixels, found inf"),
    "negative width": ({"width": -WIDTH}, "width in whole pixels, found -36"),
    "fraction": ({"width": 35.5}, "width in whole pixels, found 35.5"),
    "complex height": ({"height": 48 + 1j}, "height in whole pixels"),
    "text height": ({"height": "48"}, "height in whole pixels, found the text 48"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_cameras(tmp_path, changes, message):
    with pytest.raises(InputError, match=rf"cameras\.npz: .*{message}"):
        read(tmp_path, **changes)


@pytest.mark.parametrize(("cx", "cy"), [(17, 60), (-20, 25), (100, -3)])
def test_cropped_images(tmp_path, notices_given, cx, cy):
    """A picture of the head alone, or of somebody in a corner, does not contain its camera's principal point."""
    intrinsic = np.array([[90.0, 0, cx], [0, 80, cy], [0, 0, 1]])
    np.testing.assert_array_equal(read(tmp_path, intrinsic=each_frame(intrinsic))[2], each_frame(intrinsic))
    assert len(notices_given) == 1 and "lies outside of the images, as it does after cropping" in notices_given[0]


def test_names_of_what_is_there(tmp_path):
    np.savez(tmp_path / "cameras.npz", K=INTRINSIC, height=HEIGHT)
    with pytest.raises(InputError, match=r"found no intrinsic, extrinsic, width beside K, height\."):
        read_cameras(tmp_path / "cameras.npz", FRAMES)


def test_numbers_saved_as_objects(tmp_path):
    """They are read where they are numbers, and named where they are none."""
    arrays = {"intrinsic": INTRINSIC.astype(object), "height": np.array(HEIGHT, object), "width": WIDTH}
    np.savez(tmp_path / "cameras.npz", extrinsic=np.eye(4), **arrays)
    height, width, intrinsics, _ = read_cameras(tmp_path / "cameras.npz", FRAMES)
    assert (height, width) == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(intrinsics[0], INTRINSIC)
    np.savez(tmp_path / "cameras.npz", extrinsic=np.array([np.eye(4), None], object), **arrays)
    with pytest.raises(InputError, match=r"found objects in extrinsic\. Write"):
        read_cameras(tmp_path / "cameras.npz", FRAMES)
