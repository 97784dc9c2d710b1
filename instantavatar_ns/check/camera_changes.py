"""Changes of the cameras: mistakes in extrinsic and intrinsic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from instantavatar_ns.check.change import Change, likely_units
from instantavatar_ns.check.placement import pixel_offset, size_ratio
from instantavatar_ns.check.recording import Recording

# Sizes of images that a camera matrix was made for, divided by those of the images.
_RESOLUTIONS = {4.0: "four times", 3.0: "three times", 2.0: "twice", 1.5: "1.5 times", 0.75: "3/4 of", 2 / 3: "2/3 of"}
_RESOLUTIONS |= {0.5: "half", 1 / 3: "a third of", 0.25: "a quarter of"}
_SAME = 0.05  # ratios that differ by less are those of a camera whose principal point is a little off the middle


def extrinsic_changes(recording: Recording) -> Iterator[Change]:
    """Other conventions of axes, directions and units."""
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    turns = {
        name: np.block(
            [[Rotation.from_rotvec([angle, 0, 0], degrees=True).as_matrix(), np.zeros((3, 1))], [np.zeros(3), 1.0]]
        )
        for name, angle in (("z", -90.0), ("y", 90.0))
    }
    yield Change(
        "camera-to-world",
        "the extrinsic inverted",
        "The extrinsic is camera-to-world: give its inverse, world-to-camera",
        partial(_camera, torch.linalg.inv),
    )
    yield Change(
        "row vectors",
        "the extrinsic's rotation transposed",
        "The extrinsic's rotation acts on row vectors: give its transpose",
        partial(_camera, _rotation_transposed),
    )
    yield Change(
        "position as translation",
        "the extrinsic's translation taken for the camera's position",
        "The extrinsic's last column is the camera's position: give -R @ position, with its rotation R",
        partial(_camera, _position_as_translation),
    )
    yield Change(
        "OpenGL axes",
        "the camera's y and z axes flipped",
        "The extrinsic has OpenGL's axes (y up, z back), or the poses have them where the extrinsic is the identity: "
        "flip the signs of the extrinsic's second and third row",
        partial(_camera, partial(_times, flip, None)),
    )
    yield Change(
        "OpenGL camera-to-world",
        "the extrinsic inverted and its y and z axes flipped",
        "The extrinsic is camera-to-world in OpenGL's axes, as NeRF's transforms.json has it: invert it, then flip the "
        "signs of its second and third row",
        partial(_camera, lambda matrix: _times(flip, None, torch.linalg.inv(matrix))),
    )
    yield Change(
        "world upside down",
        "the world's y and z axes flipped",
        "The poses' world has its y and z axes opposite to the extrinsic's: bring both to one world",
        partial(_camera, partial(_times, None, flip)),
    )
    for up, turn in turns.items():
        yield Change(
            "world on its side",
            f"the poses' world turned so that its {'y' if up == 'z' else 'z'} axis becomes {up}",
            f"The extrinsic belongs to a world whose {up} axis is up, the poses to another: bring both to one world",
            partial(_camera, partial(_times, None, turn)),
        )
    yield Change(
        "poses in the camera",
        "no extrinsic",
        "The poses are given in the camera already: give the identity as extrinsic, or the poses in the world",
        partial(_camera, lambda matrix: torch.eye(4).expand_as(matrix).to(matrix)),
    )
    for factor, unit in likely_units(recording.world_to_camera[:, :3, 3]).items():
        yield Change(
            "camera's unit",
            f"the extrinsic's translation times {factor:g}",
            f"The extrinsic's translation seems to be in {unit}: give it in metres",
            partial(_camera, partial(_translation_times, factor)),
        )


def intrinsic_changes(recording: Recording) -> Iterator[Change]:
    """Other resolutions of the camera matrix, its centers swapped or moved, and another focal length.

    Normalised and transposed matrices, and those of much larger images, have been refused when they were read.
    """
    for factor, words in _RESOLUTIONS.items():
        yield Change(
            "K of another resolution",
            f"the intrinsic times {1 / factor:.3g}",
            f"The intrinsic is for images of {words} the size: divide its first two rows by {factor:.3g}",
            lambda given, factor=factor: _lens(given, given.focal / factor, given.center / factor),
        )
    yield Change(
        "cx and cy swapped",
        "cx and cy swapped",
        "The intrinsic's cx and cy are swapped: give [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], x to the right",
        lambda given: _lens(given, given.focal, (given.center / given.pixels).flip(1) * given.pixels),
    )
    yield from _any_resolution(recording)
    yield from _principal_point(recording)
    yield focal_length_change(recording)


def focal_length_change(recording: Recording) -> Change:
    """The focal length that makes body and masks as large as each other."""
    ratio = size_ratio(recording)
    return Change(
        "focal length",
        f"the focal length times {ratio:.3g}",
        "The intrinsic's focal length does not fit the poses: give the one that they were estimated with",
        lambda given: _lens(given, given.focal * ratio, given.center),
        freedom=0.03,
        certain=False,
    )


def _any_resolution(recording: Recording) -> Iterator[Change]:
    """The intrinsic scaled to the size at which its principal point lies in the middle of the images."""
    if float(recording.center.min()) <= 0:
        return
    ratios = (recording.image_size / (2 * recording.center)).median(dim=0).values
    ratio = float(ratios.mean())
    if abs(ratio - 1) < _SAME or float(ratios.max() - ratios.min()) > _SAME * ratio:
        return
    yield Change(
        "K of another resolution",
        f"the intrinsic times {ratio:.3g}",
        f"The intrinsic is for images of about {1 / ratio:.3g} times the size: scale its first two rows as the images",
        lambda given: _lens(given, given.focal * ratio, given.center * ratio),
    )


def _is_nearer_to_middle(recording: Recording, center: Tensor) -> bool:
    """Find out if principal points are less than half as far from the images' middle as the recording's."""
    middle = recording.image_size / 2
    distance, given = ((point - middle).norm(dim=-1).median() for point in (center, recording.center))
    return bool(distance < 0.5 * given)


def _principal_point(recording: Recording) -> Iterator[Change]:
    """The principal point moved onto the masks, if that brings it to about the images' middle.

    Elsewhere it is likelier that the person is off.
    """
    offset = pixel_offset(recording)
    if not _is_nearer_to_middle(recording, recording.center + offset):
        return
    width, height = (round(value) for value in (recording.image_size / recording.pixels).tolist())
    x, y = (offset / recording.pixels).tolist()
    yield Change(
        "principal point",
        f"the principal point moved by ({x:.0f}, {y:.0f}) pixels in images of {width} x {height}",
        "cx and cy do not fit the images, as after cropping: give the principal point in these images",
        lambda given: _lens(given, given.focal, given.center + offset),
        freedom=0.01,
        certain=False,
    )


def _camera(change: Callable[[Tensor], Tensor], recording: Recording) -> Recording:
    return replace(recording, world_to_camera=change(recording.world_to_camera))


def _lens(recording: Recording, focal: Tensor, center: Tensor) -> Recording:
    return replace(recording, focal=focal, center=center)


def _times(left: np.ndarray | None, right: np.ndarray | None, matrix: Tensor) -> Tensor:
    matrix = matrix if left is None else torch.from_numpy(left).to(matrix) @ matrix
    return matrix if right is None else matrix @ torch.from_numpy(right).to(matrix)


def _rotation_transposed(matrix: Tensor) -> Tensor:
    matrix = matrix.clone()
    matrix[:, :3, :3] = matrix[:, :3, :3].mT.clone()
    return matrix


def _position_as_translation(matrix: Tensor) -> Tensor:
    matrix = matrix.clone()
    matrix[:, :3, 3:] = -matrix[:, :3, :3] @ matrix[:, :3, 3:]
    return matrix


def _translation_times(factor: float, matrix: Tensor) -> Tensor:
    matrix = matrix.clone()
    matrix[:, :3, 3] *= factor
    return matrix
