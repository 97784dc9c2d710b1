"""What every benchmark writes: when, where, of which commit and by which command its figures came about."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path
from time import monotonic
from typing import Any

import torch

_START = monotonic()


def progress(text: str) -> None:
    """Print a line with the seconds since the benchmark started."""
    print(f"{monotonic() - _START:6.1f} s  {text}", flush=True)


def head(device: str | None = None) -> dict[str, Any]:
    """Date, device, commit, command and PyTorch's version.

    The variable COMMIT names the commit where there is no git.

    Args:
        device: What the benchmark ran on, where it need not be the GPU that there is.
    """
    commit = os.environ.get("COMMIT") or subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    on_gpu = torch.cuda.is_available() and (device is None or device.startswith("cuda"))
    return {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {os.cpu_count()} cores",
        "commit": commit,
        "command": shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "torch": torch.__version__,
    }


def write(path: Path | None, figures: dict[str, Any], quiet: bool = False) -> None:
    """Print figures unless `quiet`, and write them where `path` says; the file appears whole."""
    text = json.dumps(figures, indent=2) + "\n"
    if not quiet:
        print(text, end="", flush=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf8")
        os.replace(partial, path)


def merge(path: Path, part: str, figures: dict[str, Any], device: str | None = None) -> None:
    """Renew one benchmark's figures in a file of several, and leave those of others.

    When, where and of which commit a part's figures came about stands under `runs`, by the part's name.

    Args:
        path: JSON, which need not exist yet.
        part: Name of the benchmark.
        figures: By their keys.
        device: See `head`.
    """
    found = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    runs = {**found.pop("runs", {}), part: head(device)}
    write(path, {**found, **figures, "runs": runs})
