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
free body fitted to MHR's keypoints, which lie on the subject's own joints: `joints_mm` is the mean error of the joints,
`joints_aligned_mm` that after a rigid alignment and one scale of all frames.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from benchmarks import record
from instantavatar_ns.body.model import load_body_model
from instantavatar_ns.check.overlap import measure
from instantavatar_ns.check.recording import read_recording
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.importing.placement import _PELVIS
from instantavatar_ns.scripts.import_results import ImportResults
from tests.importing.tool_files import SMPLX_TOOLS, WRITERS, Truth, seen_by, write_masks, write_sam3d

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
    for name, writer in (("fitted", "gvhmr"), ("sam3d", "sam3d")):
        figures[name] = of_fit(writer, truth, images)
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


def of_fit(tool: str, truth: Truth, images: list[Path]) -> dict[str, float]:
    """Errors of joints where the free body takes the place of the subject's."""
    own = truth
    if tool == "gvhmr":
        pelvis = load_body_model(truth.body).rest(torch.from_numpy(truth.betas).float())[1][0].numpy()
        own = replace(truth, transl=truth.transl + pelvis - np.array(_PELVIS["SMPL-X"]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write = write_sam3d if tool == "sam3d" else WRITERS[tool][0]
        result, seconds = run(folder, write(folder / f"{tool}.pt", own), truth, images)
        poses = {key: torch.from_numpy(value).float() for key, value in np.load(result / "poses.npz").items()}
        found = joints("free", poses["betas"][0], poses["thetas"], poses["transl"])
        values = (torch.from_numpy(value).float() for value in (truth.betas, truth.thetas, truth.transl))
        true = joints(str(truth.body), *values)
        return {
            "joints_mm": float(1000 * np.linalg.norm(found - true, axis=-1).mean()),
            "joints_aligned_mm": float(1000 * np.linalg.norm(aligned(found, true) - true, axis=-1).mean()),
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


def joints(body: str, betas: torch.Tensor, thetas: torch.Tensor, transl: torch.Tensor) -> np.ndarray:
    """Joints in the camera, metres."""
    model = load_body_model(body)
    transforms = model.transforms(betas, thetas[:, :3], thetas[:, 3:], transl)
    return ((transforms[..., :3, :3] @ model.rest(betas)[1][..., None])[..., 0] + transforms[..., :3, 3]).numpy()


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
