"""`instant-avatar train`: what `ns-train` does, for this package's methods alone, and sooner.

The configurations, flags and run folder are the same. Imported is what these methods need; the viewer where asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.markup import escape

from instantavatar_ns.scripts.next_commands import of_run
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.later_imports import imported_later, without_compiler, without_symbolic_shapes

with imported_later():
    from nerfstudio.configs.config_utils import convert_markup_to_ansi
    from nerfstudio.engine.trainer import TrainerConfig
    from nerfstudio.utils.rich_utils import CONSOLE

    from instantavatar_ns import config as methods
    from instantavatar_ns.data import datamanager
    from instantavatar_ns.data.instantavatar_dataparser import instant_avatar_data
    from instantavatar_ns.data.neuman_dataparser import neuman_data
    from instantavatar_ns.data.people_snapshot_dataparser import people_snapshot_data
    from instantavatar_ns.data.surreal_dataparser import surreal_data
    from instantavatar_ns.data.zju_mocap_dataparser import zju_mocap_data
    from instantavatar_ns.training.run import complete, train
    from instantavatar_ns.training.run_config import load_run_config
    from instantavatar_ns.utils.replaced import replaced

METHODS = {
    method.config.method_name: method
    for method in (methods.instant_avatar, methods.instant_avatar_lite, methods.instant_avatar_wild)
}
DEFAULT_METHOD = "instant-avatar"
DATA_PARSERS = {
    "instant-avatar-data": instant_avatar_data,
    "people-snapshot-data": people_snapshot_data,
    "neuman-data": neuman_data,
    "surreal-data": surreal_data,
    "zju-mocap-data": zju_mocap_data,
}


@dataclass
class Train:
    """Train an avatar: as ns-train does, with the same flags, but sooner, and without a viewer unless asked for.

    `instant-avatar train --help` lists the flags.
    """

    def main(self) -> None:
        """Train by the command line's arguments: those of a training are parsed where only it is imported."""
        entrypoint(sys.argv[2:])


def parse(arguments: Sequence[str]) -> TrainerConfig:
    """Return the configuration that a command line asks for.

    Args:
        arguments: Those of `ns-train`; the method may be left out.
    """
    name, arguments = DEFAULT_METHOD, list(arguments)
    if arguments and arguments[0] in METHODS:
        name = arguments.pop(0)
    config = deepcopy(METHODS[name].config)
    config.vis = "none"  # pyright: ignore[reportAttributeAccessIssue]
    parsers = tyro.extras.subcommand_type_from_defaults(
        {name: parser.config for name, parser in DATA_PARSERS.items()},
        {name: parser.description or "" for name, parser in DATA_PARSERS.items()},
        prefix_names=False,
    )
    with replaced(datamanager, "AnnotatedDataParserUnion", tyro.conf.OmitSubcommandPrefixes[parsers]):
        return tyro.cli(
            tyro.conf.SuppressFixed[tyro.conf.FlagConversionOff[type(config)]],
            default=config,
            args=arguments,
            prog=f"instant-avatar train {name}",
            description=convert_markup_to_ansi(_description(name)),
        )


def _description(chosen: str) -> str:
    lines = [f"{name}: {method.description}" for name, method in METHODS.items()]
    return "\n\n".join(
        [
            f"Train an avatar by the method [bright_yellow]{chosen}[/bright_yellow]. Another one is chosen by its name "
            "as the first argument, the format of the data by its name as the last one:",
            "instant-avatar train instant-avatar-lite --data path/to/data instant-avatar-data",
            *lines,
            "Flags and the run's folder are those of ns-train. There is no viewer unless asked for, by --vis viewer.",
        ]
    )


def entrypoint(arguments: Sequence[str]) -> None:
    """Train, and tell what to do with the avatar.

    Args:
        arguments: Those of `ns-train`; the method may be left out.
    """
    config = parse(arguments)
    without_compiler()
    if config.load_config is not None:
        config = load_run_config(config.load_config)
    if config.machine.num_devices * config.machine.num_machines > 1:
        from nerfstudio.scripts.train import main  # starts processes, each of which imports all

        main(config)
        run = config.get_base_dir()
    else:
        complete(config)
        with without_symbolic_shapes(), nothing_left_of_a_refusal(config.get_base_dir()):
            run = train(config)
    CONSOLE.print(f"The run is in {escape(str(run))}", soft_wrap=True, highlight=False)
    for what, command in of_run(run / "config.yml").items():
        CONSOLE.print(f"  {what:<9} {escape(command)}", soft_wrap=True, highlight=False)


@contextmanager
def nothing_left_of_a_refusal(run: Path) -> Iterator[None]:
    """Delete the new folder of a run that an `InputError` has ended before it held more than its config.yml.

    nerfstudio's trainer wants that file before it looks at the machine and the data. Other errors keep it.

    Args:
        run: The run's folder; of its parents those are deleted that were not there before, and are empty.
    """
    new = [folder for folder in (run, *run.parents) if not folder.exists()]
    try:
        yield
    except InputError:
        if run in new and [path.name for path in run.glob("*")] == ["config.yml"]:
            (run / "config.yml").unlink()
            for folder in new:
                with suppress(OSError):  # another run has come into it
                    folder.rmdir()
        raise
