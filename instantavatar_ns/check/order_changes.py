"""Changes of the order: frames that get the poses or the cameras of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from instantavatar_ns.check.change import Change
from instantavatar_ns.check.overlap import measure
from instantavatar_ns.check.recording import Recording

_TRIED_POSES = 48
_SHIFTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50)


def shift_changes(recording: Recording) -> Iterator[Change]:
    """Poses of some frames before or after."""
    step = _smallest_gap(recording.pose_numbers)
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


def order_changes(recording: Recording) -> Iterator[Change]:
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
            words = "the poses in reverse order"
            advice = (
                "Poses or masks run backwards: reverse the order of those that do, and of the images with the masks"
            )
        else:
            words = "the poses sorted by number"
            advice = (
                "The poses are in the order of names as strings (frame_10 before frame_2), images and masks by number: "
                "sort them by number"
            )
        yield Change(kind, words, advice, partial(_reordered, partial(_looked_up, numbers, places)))


def camera_shift_changes(whole: Recording) -> Iterator[Change]:
    """Extrinsics of some frames before or after, or in reverse order.

    Args:
        whole: All frames. The camera of a frame's neighbour is not among some frames that are spread over them.
    """
    numbers, rows = whole.numbers.sort()
    cameras, last = whole.world_to_camera[rows.to(whole.world_to_camera.device)], len(numbers) - 1

    def taken(place: Callable[[Tensor], Tensor], given: Recording) -> Recording:
        places = place(torch.searchsorted(numbers, given.numbers.contiguous())).clamp(0, last)
        return replace(given, world_to_camera=cameras[places.to(cameras.device)])

    step = _smallest_gap(numbers)
    for count in _SHIFTS:
        if count > len(numbers) // 3:
            break
        for shift in (count, -count):
            frames = "1 frame" if count * step == 1 else f"{count * step} frames"
            yield Change(
                "cameras shifted",
                f"the extrinsic of {frames} {'later' if shift > 0 else 'earlier'} in each frame",
                f"The extrinsics come {frames} too {'late' if shift > 0 else 'early'} for masks and poses: let all "
                "begin with the same frame, and look for frames that one of them lacks",
                partial(taken, lambda places, shift=shift: places + shift),
            )
    yield Change(
        "cameras reversed",
        "the extrinsics in reverse order",
        "The extrinsics run backwards: reverse their order",
        partial(taken, lambda places: last - places),
    )


def camera_order_changes(recording: Recording) -> Iterator[Change]:
    """Extrinsics of other frames, in each frame the one that fits best."""
    cameras = recording.world_to_camera
    fits = [measure(replace(recording, world_to_camera=camera.expand_as(cameras))).iou for camera in cameras]
    best = torch.stack(fits).argmax(dim=0).tolist()
    taken = {number: cameras[place] for number, place in zip(recording.numbers.tolist(), best, strict=True)}

    def reordered(given: Recording) -> Recording:
        own = zip(given.numbers.tolist(), given.world_to_camera, strict=True)
        return replace(given, world_to_camera=torch.stack([taken.get(number, camera) for number, camera in own]))

    yield Change(
        "cameras in another order",
        "extrinsics of other frames",
        "Extrinsics are of other frames, or in another order: let extrinsic k belong to image and mask k, in the order "
        "of their names",
        reordered,
        freedom=0.06,
    )


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


def _reordered(order: Callable[[Tensor], Tensor], recording: Recording) -> Recording:
    return recording.with_poses(recording.poses_at(order(recording.numbers)))


def _smallest_gap(numbers: Int[Tensor, "frames"]) -> int:
    gaps = numbers.diff()
    return int(gaps[gaps > 0].min()) if bool((gaps > 0).any()) else 1


def _shifted(recording: Recording, shift: int, numbers: Tensor) -> Tensor:
    known = recording.pose_numbers
    return (numbers + shift).clamp(int(known[0]), int(known[-1]))


def _looked_up(numbers: Int[Tensor, "poses"], places: Int[Tensor, "poses"], wanted: Tensor) -> Tensor:
    at = torch.searchsorted(numbers, wanted).clamp_max(len(numbers) - 1)
    return torch.where(numbers[at] == wanted, numbers[places[at]], wanted)
