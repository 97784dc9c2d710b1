"""Flags of ns-train: few are shown, each in one line; all can be given."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import tyro
from nerfstudio.engine.trainer import TrainerConfig

from instantavatar_ns.config import instant_avatar, instant_avatar_lite, instant_avatar_wild

METHODS = {spec.config.method_name: spec.config for spec in (instant_avatar, instant_avatar_lite, instant_avatar_wild)}
MOST_FLAGS, LONGEST_HELP = 25, 110
# Groups of flags whose configuration is this package's, and flags in them that are nerfstudio's own.
OURS = ("--pipeline.", "--optimizers.")
NERFSTUDIOS = (".datamanager.data", ".max-norm", ".weight-decay")


HELP = """
import contextlib, tyro
from instantavatar_ns.config import instant_avatar, instant_avatar_lite, instant_avatar_wild
from tests.test_flags import as_ns_train
for method in (instant_avatar, instant_avatar_lite, instant_avatar_wild):
    print("method", method.config.method_name)
    with contextlib.suppress(SystemExit):
        as_ns_train(method.config, ["--help"])
for name in ("instant-avatar-data", "people-snapshot-data"):
    print("method", name)
    with contextlib.suppress(SystemExit):
        as_ns_train(instant_avatar.config, [name, "--help"])
"""


def as_ns_train(config: TrainerConfig, arguments: list[str]) -> TrainerConfig:
    """Parse arguments as nerfstudio does, without the other methods, whose import takes seconds."""
    kind = tyro.conf.SuppressFixed[tyro.conf.FlagConversionOff[type(config)]]
    return tyro.cli(kind, default=config, args=arguments)


def read_shown_flags() -> dict[str, dict[str, str]]:
    """Help of each flag that `--help` shows, by method and data format; of a process that is asked for help."""
    command = [sys.executable, "-c", HELP, "--help"]
    environment = {**os.environ, "COLUMNS": "100"}  # one column of boxes
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    methods: dict[str, dict[str, str]] = {}
    flags, name = {}, ""
    for line in shown.stdout.splitlines():
        text = re.sub(r"\x1b\[[0-9;]*m", "", line).strip().strip("│").rstrip()
        if text.startswith("method "):
            flags, name = methods.setdefault(text.removeprefix("method "), {}), ""
        elif match := re.match(r" (--[a-z0-9.-]+)(?: \S+)*(?:  +(.*))?$", text):
            name = match[1]
            flags[name] = match[2] or ""
        elif name and text.startswith("       "):
            flags[name] += f" {text.strip()}"
    return methods


def our_flags(flags: dict[str, str]) -> dict[str, str]:
    """Those flags of a method that are this package's own."""
    return {name: text for name, text in flags.items() if name.startswith(OURS) and not name.endswith(NERFSTUDIOS)}


@pytest.fixture(scope="module")
def shown_flags() -> dict[str, dict[str, str]]:
    return read_shown_flags()


@pytest.mark.parametrize("method", METHODS)
def test_few_flags_are_shown_each_in_one_line(method: str, shown_flags: dict[str, dict[str, str]]) -> None:
    flags = shown_flags[method]
    ours = our_flags(flags)
    assert "--max-num-iterations" in flags and "--pipeline.model.refine-poses" in ours, "or the help was not understood"
    assert len(ours) <= MOST_FLAGS, "\n".join(ours)
    check_help(ours)


@pytest.mark.parametrize("data_format", ["instant-avatar-data", "people-snapshot-data"])
def test_options_of_data_formats_are_told_in_one_line(data_format: str, shown_flags: dict[str, dict[str, str]]) -> None:
    flags = shown_flags[data_format]
    assert any(name.endswith("body-model") for name in flags), f"or the help was not understood: {flags}"
    check_help(flags)


def check_help(flags: dict[str, str]) -> None:
    """Check that the help of each flag is one plain line."""
    for name, text in flags.items():
        sentence, _, default = text.strip().partition(" (default:")
        assert default and sentence[0].isupper() and sentence.endswith("."), f"{name}: {text}"
        assert len(sentence) <= LONGEST_HELP and ". " not in sentence, f"{name}: {text}"


@pytest.mark.parametrize(
    ("flag", "values", "expected"),
    [
        ("model.skinning-resolution", "16 16 8", (16, 16, 8)),
        ("model.skinning.neighbors", "3", 3),
        ("model.motion-options.root", "in-place", "in-place"),
        ("model.hash-levels", "4", 4),
        ("model.cuda-graphs", "False", False),
        ("model.move-joints", "False", False),
        ("model.pose-knot-spacing", "4", 4.0),
        ("datamanager.late-rays-mult", "4", 4),
        ("datamanager.pixel-shares", "0.5 0.5 0", (0.5, 0.5, 0.0)),
        ("datamanager.seed", "3", 3),
        ("fit-poses", "fast", "fast"),
    ],
)
def test_flags_that_are_not_shown_can_be_given(flag: str, values: str, expected: object) -> None:
    default = METHODS["instant-avatar"]
    config = as_ns_train(default, [f"--pipeline.{flag}", *values.split()])
    found: object = config.pipeline
    for name in flag.replace("-", "_").split("."):
        found = getattr(found, name)
    assert found == expected
