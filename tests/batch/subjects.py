"""Batches of tiny subjects."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.commands import SMALL_TRAINING, TINY_TRAINING, command, environment

_METHOD = SMALL_TRAINING[0]


def options_of(arguments: list[str]) -> dict[str, Any]:
    """Options of a command line, as a file of subjects has them."""
    options: dict[str, Any] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name = argument[2:]
            options.pop(name, None)  # the last one counts
        else:
            options[name] = argument if name not in options else [*_listed(options[name]), argument]
    return options


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def write_batch(folder: Path, subject: Path, names: list[str], steps: int, **defaults: Any) -> Path:
    """Write a file of tiny subjects, links to one recording; "broken" is one without masks.

    Args:
        folder: Where to write it, and the recordings.
        subject: Recording in InstantAvatar's layout.
        names: Names of the subjects.
        steps: Training steps.
        defaults: Further values of all subjects.
    """
    for name in names:
        data = folder / "data" / name
        data.parent.mkdir(exist_ok=True)
        if name == "broken":
            shutil.copytree(subject, data, ignore=shutil.ignore_patterns("masks", "novel"))
        else:
            data.symlink_to(subject)
    train = options_of([*SMALL_TRAINING[1:], *TINY_TRAINING])
    train |= {"pipeline.check-data": "off", "pipeline.model.align-poses": False}
    content = {
        "defaults": {"method": _METHOD, "steps": steps, "train": train | defaults.pop("train", {}), **defaults},
        "subjects": [str(folder / "data" / name) for name in names],
    }
    path = folder / "people.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def batch_command(*arguments: object) -> list[str]:
    """Command line of a batch with two workers."""
    return [str(command("instant-avatar")), "batch", *map(str, arguments), "--workers", "2"]


def batch_environment(folder: Path) -> dict[str, str]:
    """Environment of a batch: the tests' own, with this checkout first."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    # Ray makes its workers nice, and other tests are at work.
    return environment(folder) | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
