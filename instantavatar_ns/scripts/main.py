"""Entry point of the `instant-avatar` command."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from contextlib import nullcontext
from functools import reduce
from importlib import import_module
from operator import or_
from typing import Annotated, Any

import tyro

from instantavatar_ns.utils.interrupts import STOPPED, say_stopped
from instantavatar_ns.utils.later_imports import imported_later, without_compiler, without_symbolic_shapes

COMMANDS = {
    "demo-data": "demo_data.DemoData",
    "demo": "demo.Demo",
    "process": "process.Process",
    "train": "train.Train",
    "check": "check.Check",
    "import": "import_results.ImportResults",
    "batch": "batch.Batch",
    "evaluate": "evaluate.Evaluate",
    "refined-poses": "refined_poses.RefinedPoses",
    "published-table": "published_table.PublishedTable",
    "animate": "animate.Animate",
    "unseen-views": "unseen_views.UnseenViews",
    "export": "export.Export",
}
"""Module and class of each command, in the order of the help."""
OF_A_RUN = ("animate", "unseen-views", "export")
"""Commands that open a run and start no other command of nerfstudio's: no other methods, no viewer."""


def command(name: str) -> Any:
    """Return the dataclass of a command; imported here, since no command shall wait for what the others need.

    Args:
        name: As users write it.
    """
    module, _, class_name = COMMANDS[name].partition(".")
    with imported_later() if name in OF_A_RUN else nullcontext():
        return getattr(import_module(f"instantavatar_ns.scripts.{module}"), class_name)


def commands() -> Any:
    """Union of all commands, for the help that lists them."""
    return reduce(or_, (Annotated[command(name), tyro.conf.subcommand(name)] for name in COMMANDS))


def run() -> None:
    """Be the program `instant-avatar`; some commands end without Python's tidying up, which takes a second."""
    try:
        entrypoint()
    except KeyboardInterrupt:
        say_stopped()
        sys.exit(STOPPED)
    if "".join(sys.argv[1:2]) in ("train", "batch", "evaluate", *OF_A_RUN):
        atexit._run_exitfuncs()  # loggers send their last lines
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def entrypoint() -> None:
    """Run the command that the arguments name."""
    tyro.extras.set_accent_color("bright_yellow")
    name, arguments = "".join(sys.argv[1:2]), sys.argv[2:]
    if name == "train":
        # Modules stay until the end: the collector need not look through them again and again, nor after the training.
        gc.freeze()
        from instantavatar_ns.scripts import train

        gc.freeze()
        train.entrypoint(arguments)
    elif name in OF_A_RUN:
        without_compiler()
        with without_symbolic_shapes():
            tyro.cli(command(name), args=arguments, prog=f"instant-avatar {name}").main()
    elif name in COMMANDS:
        tyro.cli(command(name), args=arguments, prog=f"instant-avatar {name}").main()
    else:
        tyro.cli(commands()).main()
