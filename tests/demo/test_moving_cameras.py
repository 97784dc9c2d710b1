"""A demo person filmed by cameras that move, and what a camera for each frame goes through."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.correction.silhouettes import pinhole_silhouettes
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.subject import subject_of
from instantavatar_ns.data.world_poses import move_rigidly
from instantavatar_ns.demo.camera_path import PATHS, MovingCamera, moving_camera
from instantavatar_ns.demo.render import LIGHT, camera_intrinsics, render_frame
from instantavatar_ns.scripts.demo_data import DemoData
from instantavatar_ns.training.coverage import observe_coverage
from tests.tiny import build, build_body, frame_store, parse

TRAIN, HELDOUT, NOVEL, SIZE = 6, 2, 2, 64


@pytest.mark.parametrize("name", PATHS)
def test_a_moving_camera_goes_about_the_pivot_and_looks_at_it(name: MovingCamera) -> None:
    pivot, path = np.array([0.1, -0.2, 5.0]), PATHS[name]
    phase = np.linspace(0, 2, 80)
    cameras = moving_camera(path, phase, pivot)
    np.testing.assert_allclose(cameras[0], np.eye(4), atol=1e-12)
    seen = cameras[:, :3, :3] @ pivot + cameras[:, :3, 3]
    wandering = np.degrees(np.abs(seen[:, :2] / seen[:, 2:] - pivot[:2] / pivot[2])).max()
    assert wandering == pytest.approx(path.aim, abs=0.1)
    centers = -np.einsum("fji,fj->fi", cameras[:, :3, :3], cameras[:, :3, 3])
    around = np.degrees(np.arctan2(centers[:, 0] - pivot[0], pivot[2] - centers[:, 2]))
    assert np.ptp(around) == pytest.approx(2 * path.around, rel=0.1)


@pytest.mark.parametrize("name", PATHS)
def test_it_comes_nearer_as_much_as_it_goes_away(name: MovingCamera) -> None:
    """Or the person would be smaller in its pictures than in the still camera's, and learned with less detail."""
    pivot = np.array([0.1, -0.2, 5.0])
    cameras = moving_camera(PATHS[name], np.arange(100) / 100, pivot)
    centers = -np.einsum("fji,fj->fi", cameras[:, :3, :3], cameras[:, :3, 3])
    distance = np.linalg.norm(centers - pivot, axis=1) / np.linalg.norm(pivot)
    assert np.ptp(distance) == pytest.approx(2 * PATHS[name].away, rel=0.05)
    assert distance.mean() == pytest.approx(1.0, abs=2e-3)


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("carried") / "subject"
    sizes = {"size": SIZE, "train_frames": TRAIN, "heldout_frames": HELDOUT, "novel_frames": NOVEL}
    DemoData(folder, **sizes, camera="carried").main()
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dance alone."""
    folder = tmp_path_factory.mktemp("film") / "dance"
    DemoData(folder, size=SIZE, train_frames=TRAIN, novel_frames=NOVEL, camera="carried").film_dance()
    return folder


def share_inside(folder: Path, poses: PoseSequence, extrinsic: np.ndarray) -> float:
    """Share of the true body's vertices that lie in the masks by these cameras."""
    body, intrinsic = load_body_model("free"), np.load(folder / "cameras.npz")["intrinsic"]
    transforms = body.transforms(poses.betas, poses.global_orient, poses.body_pose, poses.transl)
    vertices = skinned(body.rest(poses.betas)[0], body.skinning_weights, transforms).numpy()
    inside = []
    for index, matrix in enumerate(np.broadcast_to(extrinsic, (len(vertices), 4, 4))):
        mask = cv2.imread(str(folder / "masks" / f"mask_{index:04d}.png"), cv2.IMREAD_GRAYSCALE)
        points = (vertices[index] @ matrix[:3, :3].T + matrix[:3, 3]) @ intrinsic.T
        columns, rows = np.rint(points[:, :2] / points[:, 2:]).astype(int).T
        inside.append((mask[rows, columns] > 0).mean())
    return float(np.mean(inside))


def read_poses(path: Path, rotations: str) -> PoseSequence:
    values = {name: torch.from_numpy(array).float() for name, array in np.load(path).items()}
    turns = values[rotations]
    return PoseSequence(values["betas"][0], turns[:, :3], turns[:, 3:], values["transl"])


def test_the_true_body_lies_in_the_masks_by_the_cameras_of_the_frames(carried: Path) -> None:
    extrinsics, poses = np.load(carried / "cameras.npz")["extrinsic"], read_poses(carried / "truth.npz", "poses")
    assert extrinsics.shape == (8, 4, 4)
    assert share_inside(carried, poses, extrinsics) > 0.98
    assert share_inside(carried, poses, np.eye(4)) < 0.9


def test_a_film_of_the_dance_shows_the_same_poses_from_elsewhere(carried: Path, film: Path) -> None:
    ours, others = (np.load(folder / "poses.npz") for folder in (film, carried / "novel"))
    assert set(ours) == set(others)
    for name in ours:
        np.testing.assert_array_equal(ours[name], others[name])
    extrinsics, poses = np.load(film / "cameras.npz")["extrinsic"], read_poses(film / "poses.npz", "thetas")
    assert extrinsics.shape == (NOVEL, 4, 4)
    assert share_inside(film, poses, extrinsics) > 0.98
    assert share_inside(film, poses, np.eye(4)) < 0.9
    assert sorted(path.name for path in film.iterdir()) == ["cameras.npz", "images", "masks", "poses.npz"]


def test_the_whole_person_is_in_each_picture(carried: Path, film: Path, tmp_path: Path) -> None:
    DemoData(tmp_path / "handheld", size=SIZE, train_frames=12, heldout_frames=6, camera="handheld").main()
    masks = [path for folder in (carried, film, tmp_path / "handheld") for path in (folder / "masks").glob("*.png")]
    for path in masks:
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any(), path.name


def test_even_light_is_as_bright_on_all_sides() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    vertices, normals = np.asarray(ball.vertices) + np.array([0.0, 0.0, 4.0]), np.asarray(ball.vertex_normals)
    levels = {}
    for name, light in (("fixed", LIGHT), ("even", None)):
        image, alpha = render_frame(
            vertices,
            np.asarray(ball.faces),
            normals,
            intrinsics=camera_intrinsics(32),
            size=32,
            samples=2,
            albedo=lambda face, _: np.full((len(face), 3), 0.5),
            light=light,
        )
        levels[name] = image[alpha == 1]
    assert np.ptp(levels["fixed"]) > 0.1
    assert np.ptp(levels["even"]) < 1e-9
    # So that errors weigh alike in both.
    assert levels["even"].mean() == pytest.approx(levels["fixed"].mean(), rel=0.05)


def test_the_dance_is_filmed_by_the_camera_that_stands_still(carried: Path) -> None:
    np.testing.assert_array_equal(np.load(carried / "novel" / "cameras.npz")["extrinsic"], np.eye(4))


# A camera for each frame, from the file to the image


@pytest.fixture(scope="module")
def in_the_camera(carried: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures and poses told otherwise: poses in each frame's camera, which is the world's origin."""
    folder = tmp_path_factory.mktemp("in-the-camera") / "subject"
    shutil.copytree(carried, folder)
    cameras, truth = dict(np.load(folder / "cameras.npz")), dict(np.load(folder / "truth.npz"))
    values = {name: torch.from_numpy(array).float() for name, array in truth.items()}
    poses = PoseSequence(values["betas"][0], values["poses"][:, :3], values["poses"][:, 3:], values["transl"])
    extrinsics = cameras["extrinsic"]
    moved = move_rigidly(poses, load_body_model("free"), extrinsics[:, :3, :3], extrinsics[:, :3, 3])
    turns = torch.cat([moved.global_orient, moved.body_pose], dim=1)
    np.savez(folder / "truth.npz", betas=truth["betas"], poses=turns.numpy(), transl=moved.transl.numpy())
    np.savez(folder / "cameras.npz", **cameras | {"extrinsic": np.eye(4)})
    return folder


def parts(folder: Path) -> dict[str, DataparserOutputs]:
    """Training, held-out and novel frames, in their true poses."""
    return {
        "train": parse(folder, poses="truth"),
        "heldout": parse(folder, "test", poses="truth", eval_set="heldout"),
        "novel": parse(folder, "test", poses="truth", eval_set="novel"),
    }


def extrinsics_of(folder: Path, part: str) -> np.ndarray:
    if part == "novel":
        return np.broadcast_to(np.load(folder / "novel" / "cameras.npz")["extrinsic"], (NOVEL, 4, 4))
    return np.load(folder / "cameras.npz")["extrinsic"][slice(TRAIN) if part == "train" else slice(TRAIN, None)]


@pytest.mark.parametrize("part", ["train", "heldout", "novel"])
def test_points_on_the_rays_of_a_frame_project_to_its_pixels(carried: Path, part: str) -> None:
    """By the matrices in the file, at the person's distance, to a thousandth of a pixel."""
    outputs = parts(carried)[part]
    frames, intrinsic = frame_store(outputs), np.load(carried / "cameras.npz")["intrinsic"]
    to_dataset = subject_of(outputs.metadata).world_to_dataset.double().numpy()
    pixels = torch.arange(SIZE * SIZE)
    extrinsics = extrinsics_of(carried, part)
    assert len(frames) == len(extrinsics)
    for frame, extrinsic in enumerate(extrinsics):
        rays = frames.rays(torch.tensor([frame]), pixels)
        points = (rays.origins + 5.5 * rays.directions).double().numpy() @ to_dataset[:3, :3].T + to_dataset[:3, 3]
        seen = (points @ extrinsic[:3, :3].T + extrinsic[:3, 3]) @ intrinsic.T
        expected = np.stack([pixels % SIZE, pixels // SIZE], axis=1)
        np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], expected, atol=1e-3)


def test_silhouettes_are_seen_by_the_camera_of_their_frame(carried: Path) -> None:
    outputs = parts(carried)["train"]
    frames, intrinsic = frame_store(outputs), np.load(carried / "cameras.npz")["intrinsic"]
    silhouettes = pinhole_silhouettes(
        frames.images.masks(), frames.cameras, subject_of(outputs.metadata).world_to_dataset
    )
    np.testing.assert_allclose(silhouettes.world_to_camera, extrinsics_of(carried, "train"), atol=2e-6)
    np.testing.assert_allclose(silhouettes.focal, np.tile(intrinsic[[0, 1], [0, 1]], (TRAIN, 1)), rtol=1e-6)
    np.testing.assert_allclose(silhouettes.center, np.tile(intrinsic[:2, 2] + 0.5, (TRAIN, 1)), rtol=1e-6)


def test_images_are_those_of_the_poses_moved_into_each_camera(carried: Path, in_the_camera: Path) -> None:
    """Training, held-out and novel frames look as they do where the camera is the world: all the way is exact."""
    ours, others = parts(carried), parts(in_the_camera)
    # The outputs of the novel frames know the poses of all.
    models = [build_body(one["novel"]) for one in (ours, others)]
    for part in ours:
        sets = [AvatarDataset(one[part]) for one in (ours, others)]
        for index in range(len(sets[0])):
            colors, expected = (
                model.get_outputs_for_camera(frames.cameras[index : index + 1])["rgb"]
                for model, frames in zip(models, sets, strict=True)
            )
            assert (expected < 0.9).any(dim=-1).float().mean() > 0.05, "the person is in the picture"
            # Rays march from elsewhere by what float32 rounds: single samples at the outline.
            assert (colors - expected).abs().mean() < 1e-4


def test_a_film_linked_to_a_person_has_the_rows_of_poses_of_their_dance(
    carried: Path, film: Path, tmp_path: Path
) -> None:
    """So that a model that was trained with `novel/` shows the dance in the film's cameras."""
    from benchmarks.moving_camera import link_other_film

    link_other_film(carried, film, tmp_path / "linked")
    ours, others = (parts(folder)["novel"] for folder in (carried, tmp_path / "linked"))
    assert ours.cameras.metadata is not None and others.cameras.metadata is not None
    assert torch.equal(ours.cameras.metadata["pose_id"], others.cameras.metadata["pose_id"])
    subjects = [subject_of(outputs.metadata) for outputs in (ours, others)]
    assert torch.equal(subjects[0].world_to_dataset, subjects[1].world_to_dataset)
    for name in ("betas", "global_orient", "body_pose", "transl"):
        assert torch.equal(*(getattr(subject.poses, name) for subject in subjects)), name
    to_dataset, to_opengl = subjects[1].world_to_dataset.double(), torch.diag(torch.tensor([1.0, -1, -1])).double()
    centers = others.cameras.camera_to_worlds[:, :, 3].double() @ to_dataset[:3, :3].T + to_dataset[:3, 3]
    axes = to_dataset[:3, :3] @ others.cameras.camera_to_worlds[:, :, :3].double() @ to_opengl
    extrinsics = torch.from_numpy(np.load(film / "cameras.npz")["extrinsic"])
    torch.testing.assert_close(axes.mT, extrinsics[:, :3, :3], atol=1e-5, rtol=0)
    torch.testing.assert_close(-(axes.mT @ centers[..., None])[..., 0], extrinsics[:, :3, 3], atol=1e-5, rtol=0)


def test_coverage_is_that_of_the_poses_moved_into_each_camera(carried: Path, in_the_camera: Path) -> None:
    shares = []
    for folder in (carried, in_the_camera):
        outputs = parts(folder)["train"]
        model = build(outputs)
        observe_coverage(model, frame_store(outputs).cameras)
        shares.append(model.unseen.share)
    assert shares[0].std() > 0.1, "vertices are seen in some frames and not in others"
    assert (shares[0] - shares[1]).abs().mean() < 1e-3


@pytest.mark.nightly
def test_all_cameras_train(tmp_path: Path) -> None:
    from benchmarks.moving_camera import MovingCamera

    output = tmp_path / "figures.json"
    MovingCamera(output, tmp_path / "runs", size=48, train_frames=10, method="instant-avatar-lite", steps=60).main()
    for light in ("fixed", "even"):
        figures = json.loads(output.read_text())["moving_camera"][light]
        for name in ("heldout_exact_psnr", "novel_psnr", "novel_carried_psnr"):
            assert min(of_camera[name] for of_camera in figures.values()) > 16, name
        for camera in PATHS:
            assert abs(figures[camera]["heldout_loss_db"]) < 3 and abs(figures[camera]["novel_mean_loss_db"]) < 3
