"""The benchmark of moving cameras: which runs it makes, what it compares, and on which films."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from benchmarks.moving_camera import Camera, MovingCamera, compare, directions_of_view, link_other_film, nearest_degrees
from instantavatar_ns.body.files import load_body_model


def write_motion(folder: Path, transl: float = 0.0) -> Path:
    folder.mkdir(parents=True)
    np.savez(folder / "poses.npz", betas=np.zeros((1, 10)), thetas=np.zeros((2, 72)), transl=np.full((2, 3), transl))
    return folder


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    write_motion(tmp_path / "subject" / "novel")
    (tmp_path / "subject" / "subject.json").write_text("{}")
    return tmp_path / "subject"


def test_the_film_takes_the_place_of_the_novel_motion(subject: Path, tmp_path: Path) -> None:
    film = write_motion(tmp_path / "film")
    for _ in range(2):  # links that are there are renewed
        link_other_film(subject, film, tmp_path / "linked")
    assert (tmp_path / "linked" / "novel").resolve() == film.resolve()
    assert (tmp_path / "linked" / "subject.json").read_text() == "{}"
    assert not (subject / "novel").is_symlink()


def test_a_film_of_other_poses_is_refused(subject: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other transl"):
        link_other_film(subject, write_motion(tmp_path / "film", transl=0.01), tmp_path / "linked")


def test_losses_are_those_of_the_moving_cameras() -> None:
    still = {"heldout_exact_psnr": 33.0, "novel_psnr": 31.0, "novel_carried_psnr": 29.0}
    carried = {"heldout_exact_psnr": 32.0, "novel_psnr": 30.0, "novel_carried_psnr": 29.5}
    angles: dict[Camera, dict[str, float]] = {"still": {"novel_view_deg": 1.0}, "carried": {"novel_view_deg": 2.0}}
    figures = compare({"still": [still, still], "handheld": [], "carried": [carried]}, angles)
    assert figures["still"]["seeds"] == 2 and figures["still"]["novel_psnr"] == 31.0
    assert figures["carried"]["novel_view_deg"] == 2.0
    assert "handheld" not in figures and not any(name.endswith("_db") for name in figures["still"])
    losses = {name: value for name, value in figures["carried"].items() if name.endswith("_db")}
    assert losses == {
        "heldout_loss_db": 1.0,
        "novel_loss_db": 1.0,
        "novel_carried_loss_db": -0.5,
        "novel_mean_loss_db": 0.25,
    }
    assert set(compare({"still": [], "carried": [carried]}, angles)["carried"]) == {*carried, "seeds", "novel_view_deg"}


def test_views_are_told_from_the_person(tmp_path: Path) -> None:
    """A camera that goes round to the left of a person sees what it sees of one who turns to the right."""
    poses = np.zeros((3, 72))
    poses[:, 0] = np.pi  # upright in camera axes
    heading = Rotation.from_rotvec([0.0, np.radians(30), 0.0])
    poses[1, :3] = (heading * Rotation.from_rotvec(poses[1, :3])).as_rotvec()
    betas, pivot = np.zeros((1, 10), np.float32), np.array([0.0, 0.0, 5.0])
    root = load_body_model("free").rest(torch.zeros(10))[1][0].numpy()
    np.savez(tmp_path / "poses.npz", betas=betas, thetas=poses, transl=np.tile(pivot - root, (3, 1)))
    extrinsics = np.tile(np.eye(4), (3, 1, 1))
    extrinsics[2, :3, :3] = heading.inv().as_matrix()
    extrinsics[2, :3, 3] = pivot - extrinsics[2, :3, :3] @ pivot
    np.savez(tmp_path / "cameras.npz", extrinsic=extrinsics)
    first, turned, gone_round = directions_of_view(tmp_path / "poses.npz", tmp_path / "cameras.npz")
    np.testing.assert_allclose(first, [0, 0, 1], atol=1e-6)
    degrees = nearest_degrees(np.stack([turned, gone_round]), first[None])
    np.testing.assert_allclose(degrees, [30, 30], atol=1e-4)
    between = nearest_degrees(turned[None], gone_round[None])
    np.testing.assert_allclose(between, 60, atol=1e-4)


def test_all_runs_are_made_and_those_that_fail_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMIT", "0123456789")
    output, made, filmed = tmp_path / "figures.json", [], []
    output.write_text(json.dumps({"others": 1}))
    benchmark = MovingCamera(output, tmp_path / "data", runs=tmp_path / "runs", lights=("even",), seeds=(0, 1))

    def make(folder: Path, camera: str, light: str, only_dance: bool = False) -> None:
        filmed.extend([folder.name] if only_dance else [])
        write_motion(folder if only_dance else folder / "novel")

    def measure(camera: str, light: str, seed: int) -> dict[str, Any]:
        made.append((seed, light, camera))
        if made[-1] == (1, "even", "still"):
            raise RuntimeError("out of memory")
        return dict.fromkeys(("heldout_exact_psnr", "novel_psnr", "novel_carried_psnr"), 30.0 + seed)

    monkeypatch.setattr(benchmark, "_make", make)
    monkeypatch.setattr(benchmark, "measure", measure)
    monkeypatch.setattr(benchmark, "_view_angles", lambda camera, light: {"novel_view_deg": 1.0})
    with pytest.raises(SystemExit, match=r"still-even-540-100\.1: RuntimeError: out of memory"):
        benchmark.main()
    assert filmed == ["dance-carried-even-540-100"]
    assert len(set(made)) == 6 and [seed for seed, *_ in made] == [0, 0, 0, 1, 1, 1]
    figures = json.loads(output.read_text())
    assert figures["others"] == 1
    assert figures["moving_camera"]["even"]["carried"]["seeds"] == 2
    assert figures["moving_camera"]["even"]["still"]["seeds"] == 1
    for camera in ("handheld", "carried"):
        assert figures["moving_camera"]["even"][camera]["novel_mean_loss_db"] == -0.5
