"""Train on a subject folder, film and export the avatar, open it in the viewer, and measure all three.

    python -m benchmarks.animate --subject path/to/dev-male --output benchmarks/results/animate.json
    python -m benchmarks.animate --load-config outputs/benchmark-animate/dev-male/instant-avatar/run/config.yml \
        --parts viewer --output benchmarks/results/animate.json

The films are those of README and docs/motions.md: `walk` from a camera that goes round, and every motion that comes
along from one that stands. `whole_frames` of all their `frames` show the person, away from the picture's border.

One command for benchmarks/export.py and benchmarks/viewer_latency.py, which say what their figures mean; `ns-viewer`
serves the finished run meanwhile, and writes what it has to say into viewer.log in the run's folder. Figures are
written as soon as they are known. Those of other parts stay in the JSON where it is of this commit and device.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# As in `instant-avatar export`; here, PyTorch is loaded before the package.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import tyro
from PIL import Image

from benchmarks import record, training
from benchmarks.export import ExportBenchmark
from benchmarks.viewer_latency import ViewerLatency
from instantavatar_ns.motion.editing import MotionOptions
from instantavatar_ns.motion.free_motions import library_names
from instantavatar_ns.scripts import animate
from tests.pictures import is_whole

FILMS = [("walk", "orbit"), *((motion, "static") for motion in library_names())]
_LOG_LINES = 60  # of the viewer's, shown when it fails
_GOODBYE = 10.0  # seconds that it has to end


@dataclass
class Animate:
    """Benchmark of films, of the exported file and of the viewer."""

    subject: Path | None = None
    """Folder in InstantAvatar's layout, with a novel/ folder, to train on."""
    load_config: Path | None = None
    """config.yml of a finished run, instead of a training."""
    parts: tuple[Literal["films", "export", "viewer"], ...] = ("films", "export", "viewer")
    """What to measure."""
    output: Path = Path("benchmarks/results/animate.json")
    """JSON to write."""
    runs: Path = Path("outputs/benchmark-animate")
    """Where the run goes."""
    method: Literal["instant-avatar", "instant-avatar-lite"] = "instant-avatar"
    """Method to train."""
    steps: int | None = None
    """Training steps, by default the method's."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    resolution: int = 540
    """Height of films, height and width of the viewer's full images."""
    film_fps: float = 30.0
    """Frames per second of films; fewer for a CPU."""
    repeats: int = 12
    """Changes of each kind in the viewer."""
    budget: float = 60.0
    """Seconds after which no further change is made; at least one of each kind is."""
    timeout: float = 120.0
    """Seconds that the viewer may take to start, or an image to come."""

    def main(self) -> None:
        """Measure everything and write the figures, what there is after each part."""
        config, result = self._run(), _kept(self.output, record.head())

        def report(figures: dict[str, float]) -> None:
            record.write(self.output, result | figures)

        if "films" in self.parts:
            result |= self._film(config)
            report({})
        if "export" in self.parts:
            result |= ExportBenchmark(load_config=config, lpips_backbone=self.lpips_backbone).measure()
            report({})
        if "viewer" in self.parts:
            with viewer(config, self.timeout) as port:
                record.progress("viewer: answers")
                ViewerLatency(
                    port=port,
                    resolution=self.resolution,
                    repeats=self.repeats,
                    budget=self.budget,
                    timeout=self.timeout,
                ).measure(report)

    def _film(self, config: Path) -> dict[str, float]:
        """Frames of all films, and those that show the whole person."""
        frames = whole = 0
        for motion, camera in FILMS:
            with tempfile.TemporaryDirectory() as folder:
                command = animate.Animate(config, Path(motion), Path(folder) / "frames", camera, self.resolution)
                command.motion_options = MotionOptions(fps=self.film_fps)
                images = sorted(command.main().glob("*.png"))
                opacities = [np.asarray(Image.open(image))[..., 3] / 255 for image in images]
            cut = [index for index, opacity in enumerate(opacities) if not is_whole(opacity)]
            record.progress(f"{motion}, {camera}: {len(images)} frames, cut: {cut or 'none'}")
            frames, whole = frames + len(images), whole + len(images) - len(cut)
        return {"frames": frames, "whole_frames": whole}

    def _run(self) -> Path:
        """config.yml of the run."""
        if (self.subject is None) == (self.load_config is None):
            raise SystemExit("Give either --subject, to train on, or --load-config of a finished run")
        if self.subject is None:
            assert self.load_config is not None
            return self.load_config
        name = self.subject.name
        run = training.train_here(training.arguments(self.method, self.subject, self.runs, name, self.steps))
        record.progress("trained")
        return run / "config.yml"


def _kept(path: Path, head: dict[str, Any]) -> dict[str, Any]:
    """What a file holds of the same commit and device, with the commands of both."""
    if not path.is_file():
        return head
    old = json.loads(path.read_text(encoding="utf8"))
    if any(old.get(name) != head[name] for name in ("commit", "device", "torch")):
        return head
    commands = old["command"].split("; ")
    return old | head | {"command": "; ".join(dict.fromkeys([*commands, head["command"]]))}


@contextmanager
def viewer(config: Path, timeout: float) -> Iterator[int]:
    """Serve a run by ns-viewer; yields the port.

    What it prints goes into viewer.log beside the configuration. Where anything goes wrong, its end is shown, with what
    the viewer's threads are at.

    Args:
        config: The run's config.yml.
        timeout: Seconds until it must answer.

    Raises:
        TimeoutError: It does not.
        ChildProcessError: It has ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--load-config", str(config), "--viewer.websocket-host", "127.0.0.1"]
    with served(
        ["-m", "nerfstudio.scripts.viewer.run_viewer", *options, "--viewer.websocket-port", str(port)],
        port,
        config.with_name("viewer.log"),
        timeout,
    ):
        yield port


@contextmanager
def served(arguments: list[str], port: int, log: Path, timeout: float) -> Iterator[None]:
    """Run Python, until it answers on a port and meanwhile; see `viewer`.

    Args:
        arguments: Python's.
        port: Where it will answer.
        log: File for its output.
        timeout: Seconds until it must answer.
    """
    command = [sys.executable, "-W", "ignore", "-X", "faulthandler", "-u", *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_for(process, port, timeout)
        yield
    except BaseException:
        if process.poll() is None:
            process.send_signal(signal.SIGABRT)  # Python's fault handler writes down what every thread is at
            _end(process)
        lines = log.read_text(encoding="utf8", errors="replace").splitlines()
        print(f"{log} ends with:", *lines[-_LOG_LINES:], sep="\n", file=sys.stderr, flush=True)
        raise
    finally:
        process.terminate()
        _end(process)


def _wait_for(process: subprocess.Popen[bytes], port: int, timeout: float) -> None:
    end = time.monotonic() + timeout
    while not _answers(port):
        if process.poll() is not None:
            raise ChildProcessError(f"The viewer ended with code {process.returncode} before it could be opened")
        if time.monotonic() > end:
            raise TimeoutError(f"The viewer does not answer on port {port} after {timeout:.0f} s")
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_GOODBYE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    tyro.cli(Animate, description=__doc__).main()
