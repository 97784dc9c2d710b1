"""Seconds and memory of the alignment of poses to silhouettes, by the number of frames.

The demo person turns round and round, a hundred frames a turn, and is seen at 160 pixels; poses are 2 degrees and 8 mm
an axis off. Run on two cores, with nothing else running, as

    taskset -c 0,1 python -m benchmarks.alignment --output benchmarks/results/alignment.json

and, for the growth to long recordings, on a CPU and on a GPU as

    taskset -c 0,1 python -m benchmarks.alignment --frames 100 400 1600 --instant benchmarks/results/instant.json
    python -m benchmarks.alignment --device cuda --frames 100 400 1600 --instant benchmarks/results/instant.json

Figures, for each number of frames, each measured in a process of its own:

- `seconds_100`: from given poses and masks to corrections; `cpu_seconds_100`: of all threads together. On a GPU
  libraries and kernels have been loaded before
- `peak_memory_mb_100`: of the process, and `added_memory_mb_100`: by how much the alignment raised it
- `device_memory_mb_100`: the most that the alignment had on a GPU at a time
- `error_deg_100`, `given_error_deg_100`: mean rotation error of the joints after and before
- `growth_200`, `growth_400`: seconds a frame, divided by those of the first number of frames; `growth`: the largest

`--instant` renews figures in a file of several benchmarks: `align_s_100` of a GPU, `align_cpu_s_100` of a CPU, and so
on; of the largest number of frames also the memory, `align_gb_1600` on the device and `align_cpu_gb_1600` of the whole
process, and the growth, `align_growth` and `align_cpu_growth`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from benchmarks import record
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.model import rotation_matrices
from instantavatar_ns.correction.alignment import align_to_silhouettes
from instantavatar_ns.correction.pose_error import pose_error
from instantavatar_ns.correction.refinement import spline_basis
from instantavatar_ns.correction.silhouettes import Silhouettes, distance_to_mask
from instantavatar_ns.demo.motion import add_pose_noise, turn_poses
from instantavatar_ns.demo.render import camera_intrinsics, render_frame
from instantavatar_ns.demo.subject import DemoSubject, make_subject

FRAMES_A_TURN, KNOT_SPACING = 100, 8.0
DISTANCE = 4.0  # metres from the camera


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 200, 400], help="in ascending order")
    parser.add_argument("--size", type=int, default=160, help="height and width of the masks")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--instant", type=Path, help="JSON file of several benchmarks to renew")
    args = parser.parse_args()
    figures = measure(args.frames, args.size, args.threads, args.device)
    settings = {"threads": args.threads, "size": args.size}
    record.write(args.output, record.head(args.device) | settings | figures)
    if args.instant:
        part = "alignment" if args.device == "cuda" else "alignment on a CPU"
        record.merge(args.instant, part, headlines(figures, args.frames, args.device), args.device)


def measure(frames: list[int], size: int, threads: int, device: str) -> dict[str, float]:
    """Figures for some numbers of frames, the first of which growth refers to."""
    record.progress(f"drawing {max(frames)} masks")
    recording = make_recording(max(frames), size)
    figures = {}
    for number in frames:
        # Memory that a process once held counts until it ends.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            of_number = pool.apply(align, (recording.first(number), threads, device))
        figures |= {f"{name}_{number}": value for name, value in of_number.items()}
        record.progress(f"{number} frames: {of_number['seconds']:.1f} s")
    return figures | growths(figures, frames)


def headlines(figures: dict[str, float], frames: list[int], device: str) -> dict[str, float]:
    """Figures for the file of several benchmarks.

    Args:
        figures: Of `measure`.
        frames: Numbers of frames, the largest last.
        device: "cpu" or "cuda".
    """
    prefix, memory = ("align", "device_memory_mb") if device == "cuda" else ("align_cpu", "peak_memory_mb")
    result = {f"{prefix}_s_{number}": round(figures[f"seconds_{number}"], 2) for number in frames}
    result[f"{prefix}_gb_{frames[-1]}"] = round(figures[f"{memory}_{frames[-1]}"] / 1000, 3)
    return result | ({f"{prefix}_growth": round(figures["growth"], 3)} if "growth" in figures else {})


def growths(figures: dict[str, float], frames: list[int]) -> dict[str, float]:
    """Seconds a frame by those of the first number of frames, and the largest of these ratios."""
    result = {
        f"growth_{number}": figures[f"seconds_{number}"] / figures[f"seconds_{frames[0]}"] * frames[0] / number
        for number in frames[1:]
    }
    return result | ({"growth": max(result.values())} if result else {})


@dataclass(frozen=True)
class Recording:
    """Masks of the demo person, with exact and estimated poses.

    Attributes:
        masks: Opacity, 0 to 255.
        poses: Axis-angle rotations of the joints, radians.
        transl: Of the body, metres.
        given: The same rotations as a pose estimator gives them.
        given_transl: The same of the translations.
    """

    masks: UInt8[np.ndarray, "frames size size"]
    poses: Float[np.ndarray, "frames 24 3"]
    transl: Float[np.ndarray, "frames 3"]
    given: Float[np.ndarray, "frames 24 3"]
    given_transl: Float[np.ndarray, "frames 3"]

    def first(self, frames: int) -> Recording:
        """Return the beginning of the recording."""
        return Recording(*(value[:frames] for value in vars(self).values()))


def make_recording(frames: int, size: int) -> Recording:
    """Draw the demo person in so many frames, without colors."""
    subject = make_subject(load_body_model("free"), np.zeros(10, np.float32), 0, 0)
    poses, sway = turn_poses(np.arange(frames) / FRAMES_A_TURN, np.random.default_rng(0))
    transl = sway + np.array([0.0, 0.0, DISTANCE])
    masks = np.stack([_mask(subject, *place, size) for place in zip(poses, transl, strict=True)])
    given = add_pose_noise(poses, transl, degrees=2.0, millimeters=8.0, correlation=8.0, rng=np.random.default_rng(1))
    return Recording(masks, poses, transl, *given)


def _mask(subject: DemoSubject, pose: np.ndarray, transl: np.ndarray, size: int) -> np.ndarray:
    vertices, normals = subject.posed(pose, transl)
    camera = {"intrinsics": camera_intrinsics(size), "size": size, "samples": 1}
    _, alpha = render_frame(vertices, subject.faces, normals, **camera, albedo=lambda face, _: np.zeros((len(face), 3)))
    return np.round(255 * alpha).astype(np.uint8)


def align(recording: Recording, threads: int, device: str = "cpu") -> dict[str, float]:
    """Align a recording: time, memory and errors."""
    torch.set_num_threads(threads)
    if device == "cuda":
        _aligned(recording.first(20), device)  # loads libraries and kernels
        torch.cuda.reset_peak_memory_stats()
    before, start, cpu_start = _peak_memory_mb(), perf_counter(), process_time()
    correction = _aligned(recording, device)
    seconds, cpu_seconds, peak = perf_counter() - start, process_time() - cpu_start, _peak_memory_mb()
    given, true = (rotation_matrices(_tensor(poses)) for poses in (recording.given, recording.poses))
    figures = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_memory_mb": peak,
        "added_memory_mb": peak - before,
        "given_error_deg": pose_error(given, true).mean_deg,
        "error_deg": pose_error(rotation_matrices(correction[:, :-1]) @ given, true).mean_deg,
    }
    if device == "cuda":
        figures["device_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return figures


def _aligned(recording: Recording, device: str) -> Float[Tensor, "frames vectors 3"]:
    """Corrections of a recording's poses, on the CPU."""
    frames, size = recording.masks.shape[:2]
    camera, body = _tensor(camera_intrinsics(size)).to(device), load_body_model("free").to(device)
    basis = spline_basis(torch.arange(frames).float(), KNOT_SPACING).to(device)
    silhouettes = Silhouettes(
        distance_to_mask(torch.from_numpy(recording.masks)).to(device),
        camera.diagonal()[:2].expand(frames, 2),
        camera[:2, 2].expand(frames, 2),
        torch.eye(4, device=device).expand(frames, 4, 4),
    )
    found = align_to_silhouettes(
        body,
        torch.zeros(10, device=device),
        rotation_matrices(_tensor(recording.given)).to(device),
        _tensor(recording.given_transl).to(device),
        torch.arange(frames, device=device).float(),
        basis,
        silhouettes,
    )
    return (torch.einsum("fk,kjr->fjr", basis, found.knots) + found.remainders).cpu()


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))


def _peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts kilobytes


if __name__ == "__main__":
    main()
