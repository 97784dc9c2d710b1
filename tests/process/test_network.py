"""The pose network on a demo person: landmarks and mask where the person is, whatever the square."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.data.folder import list_images, list_masks
from instantavatar_ns.process.landmarks import most_people, read_prediction, run_network
from instantavatar_ns.process.network import LANDMARK_NAMES, MIRRORED, PoseNetwork, Square
from instantavatar_ns.process.people import Follower, find_people
from instantavatar_ns.utils.errors import InputError
from tests.process.clips import person_images


@pytest.fixture(scope="module")
def network() -> PoseNetwork:
    return PoseNetwork()


@pytest.fixture(scope="module")
def person(demo_subject: Path) -> np.ndarray:
    """The demo person from the front, 192 pixels."""
    return np.asarray(cv2.resize(person_images(demo_subject, 1)[0], (192, 192), interpolation=cv2.INTER_CUBIC))


@pytest.fixture(scope="module")
def square(network: PoseNetwork, person: np.ndarray) -> Square:
    """Where the person is found without a hint."""
    (found,) = find_people(network, person, most=1)
    return found.prediction.next_square


def _mask(subject: Path) -> np.ndarray:
    mask = cv2.imread(str(list_masks(subject, list_images(subject))[0]), cv2.IMREAD_GRAYSCALE)
    return np.asarray(cv2.resize(mask, (192, 192), interpolation=cv2.INTER_CUBIC)) > 127


def _joints(subject: Path) -> dict[str, np.ndarray]:
    """Where the first frame shows the joints, pixels of a picture of 192."""
    import torch

    poses, cameras = np.load(subject / "poses.npz"), np.load(subject / "cameras.npz")
    body = load_body_model("free")
    thetas = torch.from_numpy(poses["thetas"][:1]).float()
    betas = torch.from_numpy(poses["betas"]).float().reshape(-1)
    transl = torch.from_numpy(poses["transl"][:1]).float()
    transforms = body.transforms(betas, thetas[:, :3], thetas[:, 3:], transl)[0]
    joints = body.rest(betas)[1]
    world = (transforms[:, :3, :3] @ joints[..., None])[..., 0] + transforms[:, :3, 3]
    camera = world.numpy() @ cameras["extrinsic"][:3, :3].T + cameras["extrinsic"][:3, 3]
    pixels = camera @ cameras["intrinsic"].T
    pixels = pixels[:, :2] / pixels[:, 2:]
    scale = 192 / float(cameras["width"])
    return dict(zip(JOINT_NAMES, (pixels + 0.5) * scale - 0.5, strict=True))


def test_landmarks_and_mask_lie_on_the_person(
    network: PoseNetwork, person: np.ndarray, square: Square, demo_subject: Path
) -> None:
    prediction = network(person, square)
    mask, truth = prediction.mask_in(192, 192) > 0, _mask(demo_subject)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85
    joints = _joints(demo_subject)
    for name in ("left_shoulder", "right_shoulder", "left_knee", "right_knee", "left_ankle", "right_ankle"):
        off = np.linalg.norm(prediction.pixels[LANDMARK_NAMES.index(name)] - joints[name])
        assert off < 0.05 * 192, name
    # World landmarks: y down, the person's left on the picture's right, metres.
    assert 1.2 < np.ptp(prediction.world[:, 1]) < 2.2
    assert prediction.world[LANDMARK_NAMES.index("left_shoulder"), 0] > 0.08


def test_person_on_the_side_is_seen_the_same(network: PoseNetwork, person: np.ndarray, square: Square) -> None:
    turned = np.ascontiguousarray(np.rot90(person))  # counter-clockwise
    x, y = square.center
    tilted = network(turned, Square((y, 191 - x), square.side, square.angle - np.pi / 2))
    upright = network(person, square)
    back = np.stack([191 - tilted.pixels[:, 1], tilted.pixels[:, 0]], axis=1)
    np.testing.assert_allclose(back, upright.pixels, atol=0.02 * 192)
    # A picture on its side has the person's down along its x.
    np.testing.assert_allclose(tilted.world[:, 0], upright.world[:, 1], atol=0.05)


def test_mirrored_picture_has_mirrored_landmarks(network: PoseNetwork, person: np.ndarray, square: Square) -> None:
    there = network(person, square)
    mirrored = network(
        np.ascontiguousarray(person[:, ::-1]),
        Square((191 - square.center[0], square.center[1]), square.side, -square.angle),
    )
    sides = MIRRORED[:33]
    np.testing.assert_allclose(191 - mirrored.pixels[sides, 0], there.pixels[:, 0], atol=1.5)
    np.testing.assert_allclose(mirrored.pixels[sides, 1], there.pixels[:, 1], atol=1.5)


def _beside(*people: tuple[np.ndarray, int], width: int = 384) -> np.ndarray:
    """People beside each other in an empty room, each with the left edge of their picture."""
    room = np.full((192, width, 3), 128, np.uint8)
    for picture, left in people:
        height, across = picture.shape[:2]
        room[192 - height :, left : left + across] = picture
    return room


def _followed(network: PoseNetwork, images: list[np.ndarray]) -> tuple[list[float | None], int]:
    """Where the person is found in each picture, column; and the most people that were seen."""
    follower, columns, most = Follower(network), [], 0
    for image in images:
        prediction, people = follower.look(image)
        follower.take(prediction, people)
        columns.append(None if prediction is None else prediction.next_square.center[0])
        most = max(most, people)
    return columns, most


def test_a_person_alone_is_found_again_wherever_they_are(network: PoseNetwork, person: np.ndarray) -> None:
    (first, lost, again), most = _followed(network, [_beside((person, 0)), _beside(), _beside((person, 180))])
    assert first == pytest.approx(96, abs=20) and lost is None and again == pytest.approx(276, abs=20)
    assert most == 1


def test_another_person_is_not_taken_for_one_who_is_lost(network: PoseNetwork, person: np.ndarray) -> None:
    small = cv2.resize(person, (160, 160), interpolation=cv2.INTER_AREA)
    both, other = _beside((person, 0), (small, 220)), _beside((small, 220))
    (first, gone, again), most = _followed(network, [both, other, both])
    assert first == pytest.approx(96, abs=20) and gone is None and again == pytest.approx(96, abs=20)
    assert most == 2


def test_a_run_that_was_interrupted_goes_on_with_the_same_person(network: PoseNetwork, person: np.ndarray) -> None:
    small = cv2.resize(person, (160, 160), interpolation=cv2.INTER_AREA)
    follower = Follower(network)
    seen = follower.look(_beside((person, 0), (small, 220)), count=True)
    resumed = Follower(network)
    resumed.take(*seen)
    resumed.take(None, 1)
    assert resumed.look(_beside((small, 220)))[0] is None
    assert seen[1] == 2


def test_second_person_is_told_of(network: PoseNetwork, person: np.ndarray) -> None:
    both = np.full((192, 384, 3), 128, np.uint8)
    both[:, :192] = person
    small = cv2.resize(person, (144, 144), interpolation=cv2.INTER_AREA)
    both[40:184, 220:364] = small
    people = find_people(network, both, most=2)
    assert len(people) == 2
    assert people[0].prediction.next_square.center[0] < 192 < people[1].prediction.next_square.center[0]


def test_nobody_is_found_in_an_empty_room(network: PoseNetwork) -> None:
    rows = np.linspace(60, 180, 192, dtype=np.uint8)[:, None, None]
    room = np.broadcast_to(rows, (192, 192, 3)).copy()
    room[120:, 40:160] = (90, 60, 40)
    assert find_people(network, room) == []


def test_other_files_are_no_network(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        PoseNetwork(tmp_path / "pose.tflite")
    (tmp_path / "pose.tflite").write_bytes(b"no network" * 100)
    with pytest.raises(InputError, match="pose network"):
        PoseNetwork(tmp_path / "pose.tflite")


def test_passers_by_are_told_of(network: PoseNetwork, person: np.ndarray, tmp_path: Path) -> None:
    small = cv2.resize(person, (160, 160), interpolation=cv2.INTER_AREA)
    alone, both = _beside((person, 0)), _beside((person, 0), (small, 220))
    (tmp_path / "images").mkdir()
    for index, image in enumerate([alone, both, alone, alone]):
        cv2.imwrite(str(tmp_path / "images" / f"{index:05d}.png"), image[..., ::-1])
    frames = {"frames": [0, 1, 2, 3], "times": [0.0, 0.1, 0.2, 0.3], "sharpness": [1.0] * 4, "source_frames": 4}
    size = {"width": 384, "height": 192, "fps": 10.0, "rotation": 0, "focal": None, "source": "clip.mp4"}
    (tmp_path / "process").mkdir()
    (tmp_path / "process" / "clip.json").write_text(json.dumps(frames | size))
    run_network(tmp_path, network, lambda share: None)
    assert most_people(tmp_path) == 2
    columns = [read_prediction(path)[0] for path in sorted((tmp_path / "process" / "network").glob("*.npz"))]
    assert all(seen is not None and seen.next_square.center[0] < 192 for seen in columns)
