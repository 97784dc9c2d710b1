"""Seconds from the start of a process to the end of the first training step, as on a machine that is new to it.

Triton's and PyTorch's caches are empty and no compiler is on the path. nerfstudio's import is timed in a process of its
own, without this package, and taken off. `python -m benchmarks.first_step <arguments of ns-train>` is that process; it
says on the standard error how long its parts took.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import training

_COMPILERS = ("CC", "CXX", "CUDACXX", "CUDA_HOME", "CUDA_PATH")
# nerfstudio imports its plug-ins with itself: here it finds none.
_IMPORT = """
import time, importlib.metadata as metadata
start, found = time.perf_counter(), metadata.entry_points
def entry_points(**query):
    return metadata.EntryPoints(()) if query.get("group", "").startswith("nerfstudio.") else found(**query)
metadata.entry_points = entry_points
import nerfstudio.scripts.train
print(time.perf_counter() - start)
"""


def first_step_seconds(train_arguments: list[str]) -> dict[str, float]:
    """`first_step_s`, without nerfstudio's import, and `nerfstudio_import_s`."""
    plugins = ("NERFSTUDIO_METHOD_CONFIGS", "NERFSTUDIO_DATAPARSER_CONFIGS")
    imported = _last_number([sys.executable, "-W", "ignore", "-c", _IMPORT], _without(*plugins))
    with TemporaryDirectory() as folder:
        empty = {name: str(Path(folder, name)) for name in ("PATH", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR")}
        Path(empty["PATH"]).mkdir()
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.first_step", *train_arguments]
        start = time.time()
        end = _last_number(command, {**_without(*_COMPILERS), **empty})
    return {"first_step_s": end - start - imported, "nerfstudio_import_s": imported}


def _without(*names: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in names}


def _last_number(command: list[str], environment: dict[str, str]) -> float:
    result = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return float(result.stdout.splitlines()[-1])


def main() -> None:
    """Train for one step and print the time at its end."""
    times = [time.perf_counter()]
    import nerfstudio.scripts.train  # noqa: F401
    from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

    times.append(time.perf_counter())
    trainer = training.set_up(sys.argv[1:])
    times.append(time.perf_counter())

    def end(step: int) -> None:
        training.synchronise()
        times.append(time.perf_counter())
        imports, set_up, first_step = (after - before for before, after in pairwise(times))
        print(f"imports {imports:.1f} s, set-up {set_up:.1f} s, first step {first_step:.1f} s", file=sys.stderr)
        print(f"\n{time.time()}", flush=True)
        os._exit(0)  # what is still to come does not count, least of all a checkpoint

    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], end))
    trainer.train()


if __name__ == "__main__":
    main()
