"""Run the test suite, and note how it ended: figures that an issue asks for have a record as others do.

    python -m benchmarks.suite --output benchmarks/results/suite.json               # as `make test`
    python -m benchmarks.suite --output benchmarks/results/suite.json --workers 14 --nightly   # as `make test-gpu`

Figures, under `gpu` where PyTorch finds one and under `cpu` elsewhere; those of the other are kept:

- `passed`, `failed`, `skipped`: numbers of tests; a module that is skipped as a whole counts once
- `failures`: names of those that failed
- `skips`: how many were skipped for each reason
- `seconds`: from the command to its end

The exit code is pytest's.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import torch
import tyro

from benchmarks import record


@dataclass
class Suite:
    """Run of the test suite."""

    output: Path
    """JSON to write."""
    workers: int = 2
    """Processes, of one thread each."""
    nightly: bool = False
    """Run the tests that are run each night, too."""
    paths: tuple[str, ...] = ("tests",)
    """What to run."""

    def main(self) -> int:
        """Run the tests, write the figures, and return pytest's exit code."""
        start = monotonic()
        with TemporaryDirectory() as temporary:
            report = Path(temporary) / "report.xml"
            command = [sys.executable, "-m", "pytest", "-q", "-n", str(self.workers), "--dist", "loadfile"]
            command += ["--no-loadscope-reorder", f"--junitxml={report}"]
            command += ["-m", "nightly or not nightly"] if self.nightly else []
            code = subprocess.run([*command, *self.paths], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
            figures = summary(report)
        figures |= {"seconds": round(monotonic() - start)}
        known = json.loads(self.output.read_text(encoding="utf8")) if self.output.is_file() else {}
        where = "gpu" if torch.cuda.is_available() else "cpu"
        record.write(self.output, known | {where: record.head() | figures})
        return code.returncode


def summary(report: Path) -> dict[str, Any]:
    """Count how the tests of a report ended.

    Args:
        report: JUnit's XML, as pytest writes it.
    """
    cases = [*ET.parse(report).getroot().iter("testcase")]
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skips = [skip for case in cases if (skip := case.find("skipped")) is not None]
    reasons = Counter(map(_reason, skips))
    return {
        "passed": len(cases) - len(failed) - len(skips),
        "failed": len(failed),
        "skipped": len(skips),
        "failures": sorted(f"{case.get('classname')}.{case.get('name')}" for case in failed),
        "skips": dict(sorted(reasons.items())),
    }


def _reason(skip: ET.Element) -> str:
    """Why a test was skipped; of a module that was skipped pytest writes a tuple of file, line and reason."""
    text = (skip.text or "").strip() if skip.get("message") == "collection skipped" else skip.get("message", "")
    if text.startswith("("):
        text = str(ast.literal_eval(text)[2])
    reason = text.removeprefix("Skipped: ").partition(" (")[0]
    return re.sub(r" beside /\S+", "", reason)  # names a folder of this machine, as the bracket does


if __name__ == "__main__":
    raise SystemExit(tyro.cli(Suite).main())
