"""Exactness of imported results of pose estimators, and of the fits of body and shape.

Of a subject with ground truth (InstantAvatar's layout with `truth.npz`), files are written in each tool's structure and
camera, and imported; where a tool assumes a focal length, the person stands so far away that it is right, and the masks
are those of the posed body. Run as

    python -m benchmarks.imports --subject data/subject --output benchmarks/results/imports.json

Figures, for each tool, under its name:

- `degrees`: largest error of a joint's rotation; `millimeters`: of the pelvis; `focal_percent`: of the focal length
- `coverage`, `iou`: share of the masks that the posed body covers, and their intersection over union
- `seconds`: of the import, most of them for images

`fitted` are the same with the free body, whose shape is fitted to the masks (of GVHMR's file), and `sam3d` with the
free body fitted to MHR's keypoints, which lie on the subject's own joints, and to its vertices, points all over the
subject's own body; `sam3d_keypoints` is that of a file without the vertices.

- `joints_mm`: mean error of the joints; `joints_aligned_mm`: that after a rigid alignment and one scale of all frames
- `turned_degrees`: mean error of the bones' rotations, apart from what is the same in all frames, as bodies differ
- `surface_mm`: mean distance between the vertices of either body and the closest ones of the other
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import cv2
import joblib
import numpy as np
import torch
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from benchmarks import record
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.poses import PoseSequence, posed_joints
from instantavatar_ns.check.overlap import measure
from instantavatar_ns.check.recording import read_recording
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.importing.placement import PELVIS
from instantavatar_ns.scripts.import_results import ImportResults
from tests.importing.tool_files import SMPLX_TOOLS, WRITERS, Truth, sam3d_content, seen_by, write_masks

_OWN_MASKS = [WRITERS[tool][1] for tool in ("phalp", "tram", "prompthmr")]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", type=Path, required=True, help="folder with truth.npz and body/")
    parser.add_argument("--step", type=int, default=1, help="use every n-th frame")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    figures = record.head("cpu") | {"subject": args.subject.name}
    truth = read_truth(args.subject, args.step)
    images = sorted((args.subject / "images").iterdir())[:: args.step]
    for tool in WRITERS:
        figures[tool] = of_tool(tool, truth, images)
        record.progress(f"{tool}: {figures[tool]}")
    for name, write in (("fitted", write_smplx), ("sam3d", write_sam3d), ("sam3d_keypoints", write_keypoints)):
        figures[name] = of_fit(write, truth, images)
        record.progress(f"{name}: {figures[name]}")
    record.write(args.output, figures)


def read_truth(subject: Path, step: int) -> Truth:
    """The subject's exact poses and masks."""
    poses, cameras = np.load(subject / "truth.npz"), np.load(subject / "cameras.npz")
    masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted((subject / "masks").iterdir())]
    thetas = poses["poses"].astype(np.float64)
    intrinsics = np.tile(cameras["intrinsic"].astype(np.float64), (len(thetas), 1, 1))
    body = next((subject / "body").iterdir())
    rows = slice(None, None, step)
    every = np.stack(masks)  # pyright: ignore[reportCallIssue, reportArgumentType]
    betas = poses["betas"].reshape(-1)[:10].astype(np.float64)
    return Truth(betas, thetas[rows], poses["transl"][rows].astype(np.float64), intrinsics[rows], every[rows], body)


def of_tool(tool: str, truth: Truth, images: list[Path]) -> dict[str, float]:
    """Errors of a tool's import with the subject's own body."""
    own = truth
    if tool in SMPLX_TOOLS:
        own = replace(own, thetas=own.thetas * (np.arange(72) < 66))
    if tool in ("romp", "phalp", "wham", "smplerx"):
        own = seen_by(tool, own)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write, file = WRITERS[tool]
        result, seconds = run(folder, write(folder / file, own), own, images, body_model=str(own.body), shape="given")
        poses, cameras = np.load(result / "poses.npz"), np.load(result / "cameras.npz")
        frames = len(own)
        to_camera = np.broadcast_to(cameras["extrinsic"], (frames, 4, 4))
        thetas = poses["thetas"].reshape(frames, 24, 3).astype(np.float64)
        root = Rotation.from_matrix(to_camera[:, :3, :3]) * Rotation.from_rotvec(thetas[:, 0])
        thetas[:, 0] = root.as_rotvec()
        turned = Rotation.from_rotvec(own.thetas.reshape(-1, 3)).inv() * Rotation.from_rotvec(thetas.reshape(-1, 3))
        pelvis = load_body_model(own.body).rest(torch.from_numpy(poses["betas"][0]))[1][0].numpy()
        places = np.einsum("frc,fc->fr", to_camera[:, :3, :3], poses["transl"] + pelvis) + to_camera[:, :3, 3]
        focal = np.broadcast_to(cameras["intrinsic"], (frames, 3, 3))[:, 0, 0]
        return {
            "degrees": float(np.degrees(turned.magnitude().max())),
            "millimeters": float(1000 * np.linalg.norm(places - own.transl - pelvis, axis=1).max()),
            "focal_percent": float(100 * np.abs(focal / own.intrinsics[:, 0, 0] - 1).max()),
            **overlap(result),
            "seconds": seconds,
        }


def write_smplx(folder: Path, truth: Truth) -> Path:
    """GVHMR's file, whose body has its pelvis elsewhere."""
    pelvis = load_body_model(truth.body).rest(torch.from_numpy(truth.betas).float())[1][0].numpy()
    moved = replace(truth, transl=truth.transl + pelvis - np.array(PELVIS["SMPL-X"]))
    return WRITERS["gvhmr"][0](folder / "hmr4d_results.pt", moved)


def write_sam3d(folder: Path, truth: Truth) -> Path:
    """SAM 3D Body's people in one pickle."""
    joblib.dump([[person] for person in sam3d_content(truth)], folder / "outputs.pkl")
    return folder / "outputs.pkl"


def write_keypoints(folder: Path, truth: Truth) -> Path:
    """The same without vertices."""
    people = [{key: person[key] for key in person if key != "pred_vertices"} for person in sam3d_content(truth)]
    joblib.dump([[person] for person in people], folder / "outputs.pkl")
    return folder / "outputs.pkl"


def of_fit(write: Callable[[Path, Truth], Path], truth: Truth, images: list[Path]) -> dict[str, float]:
    """Errors of joints, bones and surface where the free body takes the place of the subject's."""
    with tempfile.TemporaryDirectory() as name:
        result, seconds = run(Path(name), write(Path(name), truth), truth, images)
        poses = {key: torch.from_numpy(value).float() for key, value in np.load(result / "poses.npz").items()}
        values = (torch.from_numpy(value).float() for value in (truth.betas, truth.thetas, truth.transl))
        found = posed("free", poses["betas"][0], poses["thetas"], poses["transl"])
        true = posed(str(truth.body), *values)
        return {
            "joints_mm": float(1000 * np.linalg.norm(found.joints - true.joints, axis=-1).mean()),
            "joints_aligned_mm": float(
                1000 * np.linalg.norm(aligned(found.joints, true.joints) - true.joints, axis=-1).mean()
            ),
            "turned_degrees": turned(found.bones, true.bones),
            "surface_mm": float(np.mean([apart(*pair) for pair in zip(found.vertices, true.vertices, strict=True)])),
            **overlap(result),
            "seconds": seconds,
        }


def run(folder: Path, result: Path, truth: Truth, images: list[Path], **options: str) -> tuple[Path, float]:
    """Import a result; the folder written, and how long it took."""
    (folder / "frames").mkdir()
    for number, image in enumerate(images):
        (folder / "frames" / f"{number:08d}{image.suffix}").symlink_to(image.resolve())
    # Where the result has masks, they are read from there.
    masks = None if result.name in _OWN_MASKS else write_masks(folder / "masks", truth)
    start = perf_counter()
    ImportResults(result, folder / "frames", folder / "out", masks=masks, **options).main()  # pyright: ignore[reportArgumentType]
    return folder / "out", perf_counter() - start


def overlap(folder: Path) -> dict[str, float]:
    """Body against mask in all frames."""
    count = len(list((folder / "images").iterdir()))
    config = InstantAvatarDataParserConfig(data=folder, train_frames=(0, count, 1), test_frames=(0, count, 1))
    measured = measure(read_recording(AvatarDataset(config.setup().get_dataparser_outputs("train"))))
    return {"coverage": float(measured.coverage.mean()), "iou": float(measured.iou.mean())}


class Posed(NamedTuple):
    """Joints and vertices in the camera, metres, and the bones' rotations."""

    joints: np.ndarray
    vertices: np.ndarray
    bones: np.ndarray


def posed(name: str, betas: torch.Tensor, thetas: torch.Tensor, transl: torch.Tensor) -> Posed:
    """A body in the poses of all frames."""
    body = load_body_model(name)
    poses = PoseSequence(betas, thetas[:, :3], thetas[:, 3:], transl)
    values = betas, poses.global_orient, poses.body_pose, transl
    bones = body.transforms(*values)[..., :3, :3]
    return Posed(posed_joints(body, poses).numpy(), body.vertices(*values).numpy(), bones.numpy())


def turned(found: np.ndarray, true: np.ndarray) -> float:
    """Mean angle, degrees, between found bones and true ones, less each bone's mean rotation of all frames."""
    angles = []
    for bone in range(found.shape[1]):
        error = Rotation.from_matrix(true[:, bone].swapaxes(1, 2) @ found[:, bone])
        angles.append((error.mean().inv() * error).magnitude())
    return float(np.degrees(np.mean(angles)))


def apart(found: np.ndarray, true: np.ndarray) -> float:
    """Mean distance, millimetres, of points of either surface from the closest ones of the other."""
    return 500 * float(KDTree(true).query(found)[0].mean() + KDTree(found).query(true)[0].mean())


def aligned(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Joints moved rigidly and scaled, all frames alike, so that they lie nearest to the true ones."""
    centers = found.mean(axis=(0, 1)), true.mean(axis=(0, 1))
    a, b = (values.reshape(-1, 3) - center for values, center in zip((found, true), centers, strict=True))
    left, size, right = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    scale = (size * sign).sum() / (a**2).sum()
    return (scale * a @ (left * sign @ right).T + centers[1]).reshape(found.shape)


if __name__ == "__main__":
    main()
