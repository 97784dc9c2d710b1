"""Train on a subject folder, export the avatar, open it in the viewer, and measure both.

    python benchmarks/animate.py --subject path/to/dev-male --output benchmarks/results/animate.json

One command for benchmarks/export.py and benchmarks/viewer_latency.py, which say what their figures mean; `ns-viewer`
serves the finished run meanwhile.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks import record, training
from benchmarks.export import ExportBenchmark
from benchmarks.viewer_latency import ViewerLatency


@dataclass
class Animate:
    """Benchmark of the exported file and of the viewer."""

    subject: Path
    """Folder in InstantAvatar's layout, with a novel/ folder."""
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
    """Height and width of the viewer's full images."""
    repeats: int = 30
    """Changes of each kind in the viewer."""
    timeout: float = 120.0
    """Seconds that the viewer may take to start, or an image to come."""

    def main(self) -> None:
        """Measure everything and write the figures, what there is after each part."""
        name = self.subject.name
        run = training.train_here(training.arguments(self.method, self.subject, self.runs, name, self.steps))
        config = run / "config.yml"
        result = record.head()
        result |= ExportBenchmark(load_config=config, lpips_backbone=self.lpips_backbone).measure()
        record.write(self.output, result)
        with viewer(config, self.timeout) as port:
            latency = ViewerLatency(port=port, resolution=self.resolution, repeats=self.repeats, timeout=self.timeout)
            result |= latency.figures()
        record.write(self.output, result)


@contextmanager
def viewer(config: Path, timeout: float) -> Iterator[int]:
    """Serve a run by ns-viewer; yields the port.

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
    module = "nerfstudio.scripts.viewer.run_viewer"
    command = [sys.executable, "-W", "ignore", "-m", module, "--load-config", str(config)]
    process = subprocess.Popen([*command, "--viewer.websocket-port", str(port)], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + timeout
        while not _answers(port):
            if process.poll() is not None:
                raise ChildProcessError(f"ns-viewer ended with code {process.returncode} before it could be opened")
            if time.monotonic() > end:
                raise TimeoutError(f"ns-viewer does not answer on port {port} after {timeout:.0f} s")
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    tyro.cli(Animate, description=__doc__).main()
