"""Entry point of the `instant-avatar` command."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import tyro


def commands() -> Any:
    """Union of all commands; imported here, since a training shall not wait for what the other commands need."""
    from instantavatar_ns.scripts.animate import Animate
    from instantavatar_ns.scripts.batch import Batch
    from instantavatar_ns.scripts.check import Check
    from instantavatar_ns.scripts.demo import Demo
    from instantavatar_ns.scripts.demo_data import DemoData
    from instantavatar_ns.scripts.evaluate import Evaluate
    from instantavatar_ns.scripts.export import Export
    from instantavatar_ns.scripts.import_results import ImportResults
    from instantavatar_ns.scripts.process import Process
    from instantavatar_ns.scripts.published_table import PublishedTable
    from instantavatar_ns.scripts.refined_poses import RefinedPoses
    from instantavatar_ns.scripts.train import Train
    from instantavatar_ns.scripts.unseen_views import UnseenViews

    return (
        Annotated[DemoData, tyro.conf.subcommand("demo-data")]
        | Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[Process, tyro.conf.subcommand("process")]
        | Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Check, tyro.conf.subcommand("check")]
        | Annotated[ImportResults, tyro.conf.subcommand("import")]
        | Annotated[Batch, tyro.conf.subcommand("batch")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[RefinedPoses, tyro.conf.subcommand("refined-poses")]
        | Annotated[PublishedTable, tyro.conf.subcommand("published-table")]
        | Annotated[Animate, tyro.conf.subcommand("animate")]
        | Annotated[UnseenViews, tyro.conf.subcommand("unseen-views")]
        | Annotated[Export, tyro.conf.subcommand("export")]
    )


def entrypoint() -> None:
    """Run `instant-avatar`."""
    tyro.extras.set_accent_color("bright_yellow")
    if sys.argv[1:2] == ["train"]:
        from instantavatar_ns.scripts import train

        train.entrypoint(sys.argv[2:])
        return
    if sys.argv[1:2] == ["batch"]:
        from instantavatar_ns.scripts import batch

        batch.entrypoint(sys.argv[2:])
        return
    tyro.cli(commands()).main()
