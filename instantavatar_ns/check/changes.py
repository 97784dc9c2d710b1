"""Single changes to a recording, each of which undoes one mistake that people make.

A check tries them where the body does not fit the masks, and says which one makes it fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation
from torch import Tensor

from instantavatar_ns.check.overlap import measure, project, silhouettes
from instantavatar_ns.check.recording import Recording

_LENGTHS = {0.001: "millimetres", 0.01: "centimetres", 100.0: "hundreds of metres", 1000.0: "kilometres"}
# Sizes of images that a camera matrix was made for, divided by those of the images.
_RESOLUTIONS = {4.0: "four times", 3.0: "three times", 2.0: "twice", 1.5: "1.5 times", 0.75: "3/4 of", 2 / 3: "2/3 of"}
_RESOLUTIONS |= {0.5: "half", 1 / 3: "a third of", 0.25: "a quarter of"}
_TRIED_POSES = 48
_TRIED_BETAS = 3  # of those that a body has, the ones that change it most
_SHIFTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50)


@dataclass(frozen=True)
class Change:
    """One change to a recording.

    Attributes:
        kind: Short name of the mistake.
        words: What is changed, to follow "with" in a sentence.
        advice: What the user has to do to the data, one sentence without a full stop.
        apply: Makes the change.
        freedom: Intersection over union that a change gains on any data because it is fitted to the masks, about.
        certain: Whether data that the change makes clearly better cannot be right as it is.
    """

    kind: str
    words: str
    advice: str
    apply: Callable[[Recording], Recording]
    freedom: float = 0.0
    certain: bool = True


def fine_changes(recording: Recording) -> Iterator[Change]:
    """Changes that move the silhouettes little, so that mistakes of their kind look nearly right."""
    yield Change(
        "mirrored",
        "the masks mirrored left to right",
        "Images and masks, or the camera, are mirrored: mirror them back",
        partial(_masks, lambda masks: masks.flip(2)),
    )
    yield from shifts(recording)
    yield from _orders(recording)
    yield from _betas(recording)


def shifts(recording: Recording) -> Iterator[Change]:
    """Poses of some frames before or after."""
    step = _step(recording)
    for count in _SHIFTS:
        if count > len(recording.poses) // 3:
            return
        for shift in (count * step, -count * step):
            frames = "1 frame" if abs(shift) == 1 else f"{abs(shift)} frames"
            yield Change(
                "poses shifted",
                f"the pose of {frames} {'later' if shift > 0 else 'earlier'} in each frame",
                f"The poses come {frames} too {'late' if shift > 0 else 'early'} for the masks: let images, masks and "
                "poses begin with the same frame, and look for frames that one of them lacks",
                partial(_reordered, partial(_shifted, recording, shift)),
            )


def gross_changes(recording: Recording) -> Iterator[Change]:
    """Changes that move the body, or what the camera sees of it, by much."""
    yield from _extrinsics()
    yield from _intrinsics(recording)
    yield from _mask_images(recording)
    yield from _rotations()
    yield from _translations(recording)


# Cameras


def _extrinsics() -> Iterator[Change]:
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
        "OpenGL axes",
        "the camera's y and z axes flipped",
        "The extrinsic has OpenGL's axes (y up, z back): flip the signs of its second and third row",
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
    for factor, unit in _LENGTHS.items():
        yield Change(
            "camera's unit",
            f"the extrinsic's translation times {factor:g}",
            f"The extrinsic's translation seems to be in {unit}: give it in metres",
            partial(_camera, partial(_translation_times, factor)),
        )


def _intrinsics(recording: Recording) -> Iterator[Change]:
    for factor, words in _RESOLUTIONS.items():
        yield Change(
            "K of another resolution",
            f"the intrinsic times {1 / factor:.3g}",
            f"The intrinsic is for images of {words} the size: divide its first two rows by {factor:.3g}",
            lambda given, factor=factor: _lens(given, given.focal / factor, given.centre / factor),
        )
    yield Change(
        "normalised K",
        "the intrinsic times the image's size",
        "The intrinsic is normalised: give it in pixels, its first row times the image's width, its second times its "
        "height",
        lambda given: _lens(given, given.focal * given.image_size / given.pixels, given.middle),
    )
    yield Change(
        "normalised K",
        "the intrinsic times the image's longer side",
        "The intrinsic is normalised: give it in pixels, its first two rows times the image's longer side",
        lambda given: _lens(given, given.focal * (given.image_size / given.pixels).max(), given.middle),
    )
    yield Change(
        "principal point",
        "the principal point in the middle of the image",
        "The intrinsic's third column does not hold the principal point in pixels: is the matrix transposed?",
        lambda given: _lens(given, given.focal, given.middle),
    )
    yield Change(
        "cx and cy swapped",
        "cx and cy swapped",
        "The intrinsic's cx and cy are swapped: give [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], x to the right",
        lambda given: _lens(given, given.focal, (given.centre / given.pixels).flip(1) * given.pixels),
    )
    ratio = _size_ratio(recording)
    focal = float((recording.focal / recording.pixels).mean(dim=-1).median())
    yield Change(
        "focal length",
        f"a focal length of {focal * ratio:.0f} instead of {focal:.0f} pixels",
        "The intrinsic's focal length does not fit the poses: give the one that they were estimated with",
        lambda given: _lens(given, given.focal * ratio, given.centre),
        freedom=0.03,
        certain=False,
    )


def _camera(change: Callable[[Tensor], Tensor], recording: Recording) -> Recording:
    return replace(recording, world_to_camera=change(recording.world_to_camera))


def _lens(recording: Recording, focal: Tensor, centre: Tensor) -> Recording:
    return replace(recording, focal=focal, centre=centre)


def _times(left: np.ndarray | None, right: np.ndarray | None, matrix: Tensor) -> Tensor:
    matrix = matrix if left is None else torch.from_numpy(left).to(matrix) @ matrix
    return matrix if right is None else matrix @ torch.from_numpy(right).to(matrix)


def _rotation_transposed(matrix: Tensor) -> Tensor:
    matrix = matrix.clone()
    matrix[:, :3, :3] = matrix[:, :3, :3].mT.clone()
    return matrix


def _translation_times(factor: float, matrix: Tensor) -> Tensor:
    matrix = matrix.clone()
    matrix[:, :3, 3] *= factor
    return matrix


# Masks


def _mask_images(recording: Recording) -> Iterator[Change]:
    yield Change(
        "masks inverted",
        "the masks inverted",
        "The masks show the person in black: invert them, the person is white",
        partial(_masks, torch.logical_not),
    )
    for count, words in ((2, "upside down"), (1, "on their right side"), (-1, "on their left side")):
        yield Change(
            "images turned",
            f"the masks turned by {abs(count) * 90} degrees",
            f"Images and masks lie {words}: turn them as the camera and the poses have them",
            partial(_masks, partial(torch.rot90, k=count, dims=(1, 2))),
        )
    yield Change(
        "mirrored top to bottom",
        "the masks mirrored top to bottom",
        "Images and masks, or the camera, are mirrored top to bottom: mirror them back",
        partial(_masks, lambda masks: masks.flip(1)),
    )


def _masks(change: Callable[[Tensor], Tensor], recording: Recording) -> Recording:
    return replace(recording, masks=change(recording.masks))


# Poses


def _rotations() -> Iterator[Change]:
    yield Change(
        "degrees",
        "the rotations taken as degrees",
        "The poses' rotations are in degrees: give axis-angle vectors in radians",
        partial(_rotation_vectors, np.pi / 180, np.pi / 180),
    )
    yield Change(
        "rotations inverted",
        "all rotations inverted",
        "The poses' rotations are inverted, as transposed matrices give them: transpose them",
        partial(_rotation_vectors, -1.0, -1.0),
    )
    yield Change(
        "root inverted",
        "the root's rotation inverted",
        "global_orient is inverted, as a transposed matrix gives it: transpose it",
        partial(_rotation_vectors, -1.0, 1.0),
    )


def _rotation_vectors(root: float, others: float, recording: Recording) -> Recording:
    poses = recording.frame_poses
    return recording.with_poses(
        replace(poses, global_orient=poses.global_orient * root, body_pose=poses.body_pose * others)
    )


def _betas(recording: Recording) -> Iterator[Change]:
    """Other shapes: the mean one, or where that is given, some that people have."""
    if bool(recording.poses.betas.any()):
        yield Change(
            "betas of another body",
            "betas of zero",
            "The betas seem to be those of another body model: give the model that they were fitted with as body_model",
            partial(_with_betas, torch.zeros_like(recording.poses.betas)),
            certain=False,
        )
        return
    for index in range(_TRIED_BETAS):
        for size in (-2.0, -1.0, 1.0, 2.0):
            betas = torch.zeros_like(recording.poses.betas)
            betas[index] = size
            yield Change(
                "betas missing",
                f"{size:g} as beta {index}",
                "All betas are zero, and another shape fits better: give the betas that were fitted with the poses",
                partial(_with_betas, betas),
                certain=False,
            )


def _with_betas(betas: Float[Tensor, "10"], recording: Recording) -> Recording:
    return recording.with_poses(replace(recording.frame_poses, betas=betas))


def _translations(recording: Recording) -> Iterator[Change]:
    for factor, unit in _LENGTHS.items():
        yield Change(
            "poses' unit",
            f"transl times {factor:g}",
            f"transl seems to be in {unit}: give it in metres",
            partial(_moved, lambda transl, factor=factor: transl * factor),
        )
    pelvis = recording.surface.body.rest(recording.poses.betas.to(recording.focal.device))[1][0].cpu()
    yield Change(
        "transl is the pelvis",
        "transl taken as the place of the pelvis",
        "transl is where the pelvis is; SMPL adds it to the rest pose: subtract the pelvis of the body's rest pose",
        partial(_moved, lambda transl: transl - pelvis),
    )
    yield Change(
        "pelvis is not in transl",
        "the pelvis of the rest pose added to transl",
        "transl leaves out the pelvis of the body's rest pose, as a body centred on its pelvis has it: add it, or give "
        "the body model that the poses were fitted with",
        partial(_moved, lambda transl: transl + pelvis),
    )
    yield Change(
        "OpenGL translation",
        "transl's y and z flipped",
        "transl has OpenGL's axes (y up, z back), the rotations have not: flip the signs of its y and z",
        partial(_moved, lambda transl: transl * transl.new_tensor([1.0, -1.0, -1.0])),
    )
    words = "the body moved onto the mask in each frame"
    if not bool(recording.poses.transl.any()):
        advice = "transl is zero in all frames: give it in metres, in the extrinsic's world"
        yield Change("translation missing", words, advice, _placed_on_masks, freedom=0.08, certain=False)
        return
    advice = "Only translations are wrong: give transl in metres, in the extrinsic's world and in the frames' order"
    yield Change("translation", words, advice, _placed_on_masks, freedom=0.08, certain=False)
    offset = (_placed_on_masks(recording).points - recording.points).mean(dim=1).median(dim=0).values[None, None]
    metres = ", ".join(f"{value:.2f}" for value in offset.flatten().tolist())
    yield Change(
        "constant offset",
        f"({metres}) m added to transl",
        "transl is off by the same in all frames: it is that of another point of the body (the pelvis), of another "
        "body model, or of a world with another origin than the extrinsic's",
        partial(_shifted_by, offset=offset),
        freedom=0.04,
        certain=False,
    )


def _moved(change: Callable[[Tensor], Tensor], recording: Recording) -> Recording:
    """Apply a change of the translations, which moves points and joints alike."""
    transl = recording.frame_poses.transl
    return _shifted_by(recording, (change(transl) - transl).to(recording.points)[:, None])


def _shifted_by(recording: Recording, offset: Float[Tensor, "frames 1 3"]) -> Recording:
    return replace(recording, points=recording.points + offset, joints=recording.joints + offset)


def _placed_on_masks(recording: Recording) -> Recording:
    """Move the body of each frame so that its place and size in the image are the mask's."""
    rotation = recording.world_to_camera[:, :3, :3]
    local = recording.points @ rotation.mT
    middle = local.mean(dim=1)
    size = (local - middle[:, None])[..., :2].std(dim=1).norm(dim=-1)
    place, spread = _moments(recording.masks)
    focal = recording.focal.mean(dim=-1)
    depth = focal * size / spread.clamp_min(1e-3)

    def moved(place: Tensor, depth: Tensor) -> Recording:
        across = (place - recording.centre) / recording.focal * depth[:, None]
        wanted = torch.cat([across, depth[:, None]], dim=-1) - recording.world_to_camera[:, :3, 3]
        return _shifted_by(recording, (wanted - middle)[:, None] @ rotation)

    aim = place
    for _ in range(2):  # the middle of a silhouette is not that of the surface
        result = moved(aim, depth)
        drawn, drawn_spread = _moments(silhouettes(result))
        aim, depth = aim + place - drawn, depth * (drawn_spread / spread.clamp_min(1e-3)).clamp(0.5, 2.0)
    return moved(aim, depth)


def _size_ratio(recording: Recording) -> float:
    """Size of the masks divided by that of the body's projection, in the middling frame."""
    pixels, seen = project(recording, recording.points)
    if seen.all(dim=1).float().mean() <= 0.5:
        return 1.0
    spread = _moments(recording.masks)[1]
    ratio = float((spread / pixels.std(dim=1).norm(dim=-1).clamp_min(1e-3)).median())
    for _ in range(2):
        drawn = silhouettes(_lens(recording, recording.focal * ratio, recording.centre))
        ratio *= float((spread / _moments(drawn)[1].clamp_min(1e-3)).clamp(0.5, 2.0).median())
    return ratio


def _moments(
    images: Bool[Tensor, "frames height width"],
) -> tuple[Float[Tensor, "frames 2"], Float[Tensor, "frames"]]:
    """Centre and spread of silhouettes, pixels."""
    weights = images.float()
    area = weights.sum(dim=(1, 2)).clamp_min(1)
    centres, variance = [], torch.zeros_like(area)
    for axis in (1, 2):  # sums of columns, then of rows
        along = weights.sum(dim=axis)
        places = torch.arange(along.shape[1], device=along.device) + 0.5
        centres.append(along @ places / area)
        variance = variance + along @ places**2 / area - centres[-1] ** 2
    return torch.stack(centres, dim=-1), variance.clamp_min(0).sqrt()


# Order


def _reordered(order: Callable[[Tensor], Tensor], recording: Recording) -> Recording:
    return recording.with_poses(recording.poses_at(order(recording.numbers)))


def _step(recording: Recording) -> int:
    gaps = recording.pose_numbers.diff()
    return int(gaps[gaps > 0].min()) if bool((gaps > 0).any()) else 1


def _shifted(recording: Recording, shift: int, numbers: Tensor) -> Tensor:
    known = recording.pose_numbers
    return (numbers + shift).clamp(int(known[0]), int(known[-1]))


def _orders(recording: Recording) -> Iterator[Change]:
    """Orders that files of poses are found in, other than the recording's."""
    known = recording.pose_numbers.unique()
    own = known[torch.isin(known, recording.numbers)] if len(recording) > 1 else known
    orders = {}
    for numbers in {len(known): known, len(own): own}.values():
        for start in (0, 1):
            places = sorted(range(len(numbers)), key=lambda place, start=start: str(place + start))
            orders[tuple(places), len(numbers)] = ("string order", numbers, torch.tensor(places).argsort())
        orders[None, len(numbers)] = ("reversed", numbers, torch.arange(len(numbers)).flip(0))
    for kind, numbers, places in orders.values():
        if bool((places == torch.arange(len(places))).all()):
            continue
        if kind == "reversed":
            words, advice = "the poses in reverse order", "The poses run backwards: reverse their order"
        else:
            words = "the poses sorted by number"
            advice = (
                "The poses are in the order of names as strings (frame_10 before frame_2), images and masks by number: "
                "sort them by number"
            )
        yield Change(kind, words, advice, partial(_reordered, partial(_looked_up, numbers, places)))


def best_poses(recording: Recording) -> Change:
    """In each frame the pose, of some of the recording, that fits it best."""
    known = recording.pose_numbers.unique()
    some = known[torch.linspace(0, len(known) - 1, min(len(known), _TRIED_POSES)).round().long()]
    fits = [measure(recording.with_poses(recording.poses_at(number.expand(len(recording))))).iou for number in some]
    best = some[torch.stack(fits).argmax(dim=0).cpu()]
    taken = dict(zip(recording.numbers.tolist(), best.tolist(), strict=True))

    def order(numbers: Tensor) -> Tensor:
        return torch.tensor([taken.get(number, number) for number in numbers.tolist()])

    return Change(
        "another order",
        "poses of other frames",
        "Poses and masks are of other frames, or in another order: let pose k belong to image and mask k, in the order "
        "of their names",
        partial(_reordered, order),
        freedom=0.06,
    )


def _looked_up(numbers: Int[Tensor, "poses"], places: Int[Tensor, "poses"], wanted: Tensor) -> Tensor:
    at = torch.searchsorted(numbers, wanted).clamp_max(len(numbers) - 1)
    return torch.where(numbers[at] == wanted, numbers[places[at]], wanted)
