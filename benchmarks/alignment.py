"""Seconds and memory of the alignment of poses to silhouettes, by the number of frames.

The demo person turns round and round, a hundred frames a turn, and is seen at 160 pixels; poses are 2 degrees and 8 mm
an axis off. Run on two cores, with nothing else running, as

    taskset -c 0,1 python -m benchmarks.alignment --output benchmarks/results/alignment.json

Figures, for each number of frames, each measured in a process of its own:

- `seconds_100`: from given poses and masks to corrections; `cpu_seconds_100`: of all threads together
- `peak_memory_mb_100`: of the process, and `added_memory_mb_100`: by how much the alignment raised it
- `error_deg_100`, `given_error_deg_100`: mean rotation error of the joints after and before
- `growth_200`, `growth_400`: seconds a frame, divided by those of the first number of frames; `growth`: the largest
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
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    figures = record.head("cpu") | {"threads": args.threads, "size": args.size}
    record.write(args.output, figures | measure(args.frames, args.size, args.threads))


def measure(frames: list[int], size: int, threads: int) -> dict[str, float]:
    """Figures for some numbers of frames, the first of which growth refers to."""
    record.progress(f"drawing {max(frames)} masks")
    recording = make_recording(max(frames), size)
    figures = {}
    for number in frames:
        # Memory that a process once held counts until it ends.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            of_number = pool.apply(align, (recording.first(number), threads))
        figures |= {f"{name}_{number}": value for name, value in of_number.items()}
        record.progress(f"{number} frames: {of_number['seconds']:.1f} s")
    return figures | growths(figures, frames)


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


def align(recording: Recording, threads: int) -> dict[str, float]:
    """Align a recording: time, memory and errors."""
    torch.set_num_threads(threads)
    frames, size = recording.masks.shape[:2]
    given, true = (rotation_matrices(_tensor(poses)) for poses in (recording.given, recording.poses))
    transl, camera, times = (
        _tensor(recording.given_transl),
        _tensor(camera_intrinsics(size)),
        torch.arange(frames).float(),
    )
    basis, body = spline_basis(times, KNOT_SPACING), load_body_model("free")
    before, start, cpu_start = _peak_memory_mb(), perf_counter(), process_time()
    silhouettes = Silhouettes(
        distance_to_mask(torch.from_numpy(recording.masks)),
        camera.diagonal()[:2].expand(frames, 2),
        camera[:2, 2].expand(frames, 2),
        torch.eye(4).expand(frames, 4, 4),
    )
    found = align_to_silhouettes(body, torch.zeros(10), given, transl, times, basis, silhouettes)
    seconds, cpu_seconds, peak = perf_counter() - start, process_time() - cpu_start, _peak_memory_mb()
    correction = torch.einsum("fk,kjr->fjr", basis, found.knots) + found.remainders
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_memory_mb": peak,
        "added_memory_mb": peak - before,
        "given_error_deg": pose_error(given, true).mean_deg,
        "error_deg": pose_error(rotation_matrices(correction[:, :-1]) @ given, true).mean_deg,
    }


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))


def _peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts kilobytes


if __name__ == "__main__":
    main()
