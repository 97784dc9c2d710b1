"""The demo subject: what is written, that images, masks and poses agree, and that nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from PIL import Image
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.demo.motion import add_pose_noise, dance_poses, turn_poses
from instantavatar_ns.demo.render import BACKGROUND, camera_intrinsics, render_frame
from instantavatar_ns.demo.subject import loop_subdivide, vertex_normals
from instantavatar_ns.motion.motion import load_motion
from instantavatar_ns.scripts.demo_data import DemoData
from instantavatar_ns.utils.errors import InputError

SIZE, TRAIN, HELDOUT, NOVEL = 96, 8, 3, 4


def small(output: Path, **changes: int) -> DemoData:
    options = {"size": SIZE, "train_frames": TRAIN, "heldout_frames": HELDOUT, "novel_frames": NOVEL, "seed": 0}
    return DemoData(output=output, **{**options, **changes})


@pytest.fixture
def subject(demo_subject: Path) -> Path:
    """The folder that `small` writes; nobody changes it."""
    return demo_subject


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


def rotation_errors(noisy: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Rotation vectors [N, 3] from exact to noisy joint rotations, degrees."""
    difference = Rotation.from_rotvec(noisy.reshape(-1, 3)) * Rotation.from_rotvec(exact.reshape(-1, 3)).inv()
    return np.degrees(difference.as_rotvec())


def body_silhouette(poses: np.ndarray, transl: np.ndarray, folder: Path) -> np.ndarray:
    """Pixels [size, size] whose centres the naked body of the folder covers in a pose."""
    body = load_body_model(folder / "body" / "SMPL_NEUTRAL.npz")
    betas = torch.from_numpy(arrays(folder / "truth.npz")["betas"][0])
    pose = torch.from_numpy(poses[None])
    vertices = body.vertices(betas, pose[:, :3], pose[:, 3:], torch.from_numpy(transl[None]))[0].numpy()
    scene = EmbreeScene()
    TriangleMesh(scene, vertices.astype(np.float32), body.faces.numpy().astype(np.int32))
    column, row = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    pixels = np.stack([column.ravel(), row.ravel(), np.ones(SIZE * SIZE)])
    intrinsic = arrays(folder / "cameras.npz")["intrinsic"]
    directions = np.ascontiguousarray((np.linalg.inv(intrinsic) @ pixels).T, dtype=np.float32)
    return (scene.run(np.zeros_like(directions), directions) >= 0).reshape(SIZE, SIZE)


def test_layout_has_every_file_in_its_shape(subject: Path) -> None:
    frames = TRAIN + HELDOUT
    for folder, count in ((subject, frames), (subject / "novel", NOVEL)):
        for name, mode in (("image", "RGB"), ("mask", "L")):
            files = sorted((folder / f"{name}s").iterdir())
            assert [file.name for file in files] == [f"{name}_{i:04d}.png" for i in range(count)]
            with Image.open(files[-1]) as picture:
                assert (picture.mode, picture.size) == (mode, (SIZE, SIZE))
        camera = arrays(folder / "cameras.npz")
        assert camera["intrinsic"].shape == (3, 3) and int(camera["height"]) == int(camera["width"]) == SIZE
        np.testing.assert_array_equal(camera["extrinsic"], np.eye(4))
    shapes = {key: value.shape for key, value in arrays(subject / "poses.npz").items()}
    assert shapes == {"betas": (1, 10), "thetas": (frames, 72), "transl": (frames, 3)}
    shapes = {key: value.shape for key, value in arrays(subject / "truth.npz").items()}
    assert shapes == {"betas": (1, 10), "poses": (frames, 72), "transl": (frames, 3)}
    for split, count in (("train", TRAIN), ("val", 1), ("test", HELDOUT)):
        refined = arrays(subject / "poses" / f"anim_nerf_{split}.npz")
        assert (refined["global_orient"].shape, refined["body_pose"].shape) == ((count, 3), (count, 69))
        assert (refined["betas"].shape, refined["transl"].shape) == ((1, 10), (count, 3))
    facts = json.loads((subject / "subject.json").read_text())
    assert facts["train"] == [0, TRAIN] and facts["test"] == [TRAIN, frames]
    assert facts["size"] == SIZE and facts["seed"] == 0 and facts["license"].startswith("CC0")
    assert sorted(path.name for path in subject.parent.iterdir()) == ["subject"]


@pytest.mark.parametrize(("part", "frame"), [("", 0), ("", 2), ("", TRAIN), ("novel", 1), ("novel", 3)])
def test_naked_body_fills_the_mask_of_the_dressed_one(subject: Path, part: str, frame: int) -> None:
    exact = arrays(subject / "novel" / "poses.npz" if part else subject / "truth.npz")
    poses = exact["thetas" if part else "poses"]
    silhouette = body_silhouette(poses[frame], exact["transl"][frame], subject)
    alpha = np.asarray(Image.open(subject / part / "masks" / f"mask_{frame:04d}.png")) / 255.0
    mask = alpha > 0.5
    assert (silhouette & mask).sum() / (silhouette | mask).sum() > 0.8
    assert (silhouette & mask).sum() / silhouette.sum() > 0.97, "clothes lie outside the body"
    assert mask.sum() > 1.02 * silhouette.sum(), "clothes and hair take room"
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    assert border.max() == 0.0, "the person is inside the image"
    assert ((alpha > 0.05) & (alpha < 0.95)).sum() > 50, "edges are soft"


def test_background_is_plain_outside_the_mask(subject: Path) -> None:
    image = np.asarray(Image.open(subject / "images" / "image_0001.png"))
    alpha = np.asarray(Image.open(subject / "masks" / "mask_0001.png"))
    assert np.ptp(image[alpha == 0], axis=0).max() == 0
    assert image[alpha == 255].std(axis=0).min() > 20, "the person has texture"


def test_poses_are_off_by_what_is_promised(subject: Path) -> None:
    exact = arrays(subject / "truth.npz")
    estimated = arrays(subject / "poses.npz")
    splits = [arrays(subject / "poses" / f"anim_nerf_{split}.npz") for split in ("train", "test")]
    refined_poses = np.concatenate([np.concatenate([s["global_orient"], s["body_pose"]], 1) for s in splits])
    refined_transl = np.concatenate([s["transl"] for s in splits])
    for poses, transl, degrees, meters in (
        (estimated["thetas"], estimated["transl"], 2.0, 0.008),
        (refined_poses, refined_transl, 0.4, 0.0016),
    ):
        assert np.sqrt(np.mean(rotation_errors(poses, exact["poses"]) ** 2)) == pytest.approx(degrees, rel=0.01)
        assert np.sqrt(np.mean((transl - exact["transl"]) ** 2)) == pytest.approx(meters, rel=0.01)


def test_pose_errors_drift_instead_of_jumping() -> None:
    poses, transl = turn_poses(np.linspace(0.0, 1.0, 100), np.random.default_rng(0))
    rng = np.random.default_rng(1)
    noisy, shifted = add_pose_noise(poses, transl, degrees=2.0, millimeters=8.0, correlation=8.0, rng=rng)
    errors = rotation_errors(noisy, poses).reshape(100, -1)
    assert np.corrcoef(errors[1:].ravel(), errors[:-1].ravel())[0, 1] > 0.95
    assert abs(np.corrcoef(errors[50:].ravel(), errors[:50].ravel())[0, 1]) < 0.3
    assert np.abs(shifted - transl).max() < 0.04


def test_person_turns_once_and_then_between_the_training_views(subject: Path) -> None:
    exact = arrays(subject / "truth.npz")["poses"]
    forward = Rotation.from_rotvec(exact[:, :3]).apply([0.0, 0.0, 1.0])
    upward = Rotation.from_rotvec(exact[:, :3]).apply([0.0, 1.0, 0.0])
    assert upward[:, 1].max() < -0.95, "upright: camera axes have y down"
    assert forward[0, 2] < -0.95, "faces the camera first"
    heading = np.unwrap(np.arctan2(forward[:, 0], -forward[:, 2]))
    turned = np.abs(heading[:TRAIN] - heading[0])
    np.testing.assert_allclose(turned, 2.0 * np.pi * np.arange(TRAIN) / TRAIN, atol=0.15)
    gaps = np.abs((heading[TRAIN:, None] - heading[None, :TRAIN] + np.pi) % (2.0 * np.pi) - np.pi)
    assert gaps.min() > 0.7 * np.pi / TRAIN


def test_dance_is_not_among_the_training_poses(subject: Path) -> None:
    trained = arrays(subject / "truth.npz")["poses"][:, 3:]
    danced = arrays(subject / "novel" / "poses.npz")["thetas"][:, 3:]
    nearest = np.linalg.norm(danced[:, None] - trained[None], axis=-1).min(axis=1)
    between_trained = np.linalg.norm(trained[:, None] - trained[None], axis=-1).max()
    assert nearest.min() > 1.5 * between_trained


def test_dance_repeats_after_two_bars_and_moves_smoothly() -> None:
    poses, shifts = dance_poses(np.linspace(0.0, 2.0, 61))
    np.testing.assert_allclose(poses[-1], poses[0], atol=1e-9)
    np.testing.assert_allclose(shifts[-1], shifts[0], atol=1e-9)
    steps = rotation_errors(poses[1:, 1:], poses[:-1, 1:])
    assert np.linalg.norm(steps, axis=-1).max() < 20.0
    assert np.ptp(poses[:, 1:], axis=0).max() > 1.0


def test_dancer_stands_on_the_floor_of_the_turn(subject: Path) -> None:
    def lowest_row(folder: Path, frame: int) -> int:
        return np.flatnonzero(np.asarray(Image.open(folder / "masks" / f"mask_{frame:04d}.png")).any(axis=1)).max()

    floor = lowest_row(subject, 0)
    assert all(abs(lowest_row(subject / "novel", frame) - floor) <= 3 for frame in range(NOVEL))


def test_same_seed_gives_the_same_bytes_and_another_seed_another_person(subject: Path, tmp_path: Path) -> None:
    small(tmp_path / "again").main()
    files = sorted(path.relative_to(subject) for path in subject.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    for file in files:
        assert (subject / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    small(tmp_path / "other", seed=1, train_frames=2, heldout_frames=1, novel_frames=1).main()
    first, second = (np.asarray(Image.open(p / "images" / "image_0000.png")) for p in (subject, tmp_path / "other"))
    shirt = np.s_[SIZE // 3 : SIZE // 2, SIZE // 2 - 4 : SIZE // 2 + 4]
    assert np.abs(first[shirt].astype(int) - second[shirt]).mean() > 30
    assert (arrays(subject / "truth.npz")["betas"] != arrays(tmp_path / "other" / "truth.npz")["betas"]).all()


def test_folder_with_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="empty or does not exist yet"):
        small(tmp_path).main()
    with pytest.raises(InputError, match="empty or does not exist yet"):
        small(tmp_path / "mine.txt").main()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_interrupted_run_leaves_no_folder_and_is_redone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = small(tmp_path / "subject", size=32, train_frames=2, heldout_frames=1, novel_frames=1)
    (tmp_path / "subject").mkdir()
    with monkeypatch.context() as patch:

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(DemoData, "_write_turn_poses", interrupt)
        with pytest.raises(KeyboardInterrupt):
            command.main()
    assert not any((tmp_path / "subject").iterdir())
    command.main()
    assert [path.name for path in tmp_path.iterdir()] == ["subject"]
    assert (tmp_path / "subject" / "truth.npz").is_file()


@pytest.mark.parametrize(("option", "value"), [("size", 8), ("train_frames", 1), ("novel_frames", 0), ("seed", -1)])
def test_options_out_of_range_are_named(tmp_path: Path, option: str, value: int) -> None:
    with pytest.raises(InputError, match="--" + option.replace("_", "-")):
        small(tmp_path / "subject", **{option: value}).main()
    assert not any(tmp_path.iterdir())


def test_render_covers_exactly_the_pixels_of_a_square() -> None:
    # Four metres away, half a metre wide and high, left of and below the optical axis.
    square = np.array([[-0.5, 0.0, 4.0], [0.0, 0.0, 4.0], [0.0, 0.5, 4.0], [-0.5, 0.5, 4.0]])
    faces = np.array([[0, 2, 1], [0, 3, 2]])
    normals = np.tile([0.0, 0.0, -1.0], (4, 1))
    intrinsics = camera_intrinsics(100)
    image, alpha = render_frame(
        square,
        faces,
        normals,
        intrinsics=intrinsics,
        size=100,
        samples=4,
        albedo=lambda face, _: np.tile([0.5, 0.25, 0.0], (len(face), 1)),
    )
    assert alpha.sum() == pytest.approx((0.5 * intrinsics[0, 0] / 4.0) ** 2, rel=0.02)
    assert alpha[:50].max() == 0.0 and alpha[:, 50:].max() == 0.0 and alpha[50, 49] == 1.0
    np.testing.assert_allclose(image[0, 0], BACKGROUND)
    lit = image[60, 40]
    assert lit[0] == pytest.approx(2.0 * lit[1]) and lit[2] == 0.0
    edge = np.argwhere((alpha > 0) & (alpha < 1))[0]
    share = alpha[tuple(edge)]
    np.testing.assert_allclose(image[tuple(edge)], share * lit + (1.0 - share) * BACKGROUND, atol=1e-6)


def test_loop_subdivision_rounds_an_octahedron_and_keeps_constants() -> None:
    vertices = np.concatenate([np.eye(3), -np.eye(3)])
    faces = np.array([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])
    columns = np.concatenate([vertices, np.ones((6, 1))], axis=1)
    for _ in range(3):
        columns, faces = loop_subdivide(columns, faces)
    assert len(faces) == 8 * 4**3 and len(columns) == 4 ** (3 + 1) + 2
    np.testing.assert_allclose(columns[:, 3], 1.0)
    radii = np.linalg.norm(columns[:, :3], axis=1)
    assert radii.min() > 0.8 * radii.max(), "the octahedron's own faces reach in to 0.58"
    outward = columns[:, :3] / radii[:, None]
    assert (vertex_normals(columns[:, :3], faces) * outward).sum(axis=1).min() > 0.94


def test_dance_plays_at_its_own_speed(demo_subject):
    motion = load_motion(demo_subject / "novel" / "poses.npz")
    assert len(motion) / motion.fps == pytest.approx(3.0)
