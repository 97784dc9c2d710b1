"""`instant-avatar check`: whether a folder's poses, cameras and masks fit each other, without training."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import tyro
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from rich.table import Table

from instantavatar_ns.check.diagnosis import diagnose
from instantavatar_ns.check.guard import describe
from instantavatar_ns.check.recording import read_recording
from instantavatar_ns.check.report import Section, check_page_is_ours, telling_frames, write_page
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.data.neuman_dataparser import NeuManDataParserConfig
from instantavatar_ns.data.people_snapshot_dataparser import PeopleSnapshotDataParserConfig
from instantavatar_ns.data.surreal_dataparser import SurrealDataParserConfig
from instantavatar_ns.data.zju_mocap_dataparser import ZjuMocapDataParserConfig
from instantavatar_ns.utils.errors import InputError

if TYPE_CHECKING:  # what a call returns is no type for a type checker
    Format = DataParserConfig
else:
    Format = tyro.conf.OmitSubcommandPrefixes[
        tyro.extras.subcommand_type_from_defaults(
            {
                "instant-avatar-data": InstantAvatarDataParserConfig(),
                "people-snapshot-data": PeopleSnapshotDataParserConfig(),
                "neuman-data": NeuManDataParserConfig(),
                "surreal-data": SurrealDataParserConfig(),
                "zju-mocap-data": ZjuMocapDataParserConfig(),
            },
            prefix_names=False,
        )
    ]
_COLORS = {"good": "green", "doubtful": "yellow", "wrong": "red"}


@dataclass
class Check:
    """Compare the posed body with the masks, print a table, and write a page with the body's outline on some frames.

    Training makes the same comparison before its first step. The exit code is 1 where training would stop: held-out and
    novel frames, which it does not read, are warned of.
    """

    folder: tyro.conf.Positional[Path]
    """The recording's folder."""
    format: Format = field(default_factory=InstantAvatarDataParserConfig)
    """Format of the folder, and its options as for ns-train (its option data is the folder)."""
    output: Path = Path("check.html")
    """Page to write; one that this command wrote before is replaced."""

    def main(self) -> None:
        """Check all sets of frames.

        Raises:
            InputError: The folder cannot be read, or the page would overwrite another file.
            SystemExit: Training would stop.
        """
        check_page_is_ours(self.output)
        sections, errors = [], {}
        for name, (split, parser) in frame_sets(self.folder, self.format).items():
            try:
                sections.append(check_set(name, split, parser))
            except InputError as error:
                if not sections:
                    raise
                errors[name] = str(error)
        _print_table(sections, errors)
        write_page(self.output, f"Check of {self.folder}", sections)
        CONSOLE.print(f"Outlines on the worst, a middling and the best frame: {escape(str(self.output))}")
        train, *evaluated = sections
        bad = [section.name for section in evaluated if section.diagnosis.verdict == "wrong"] + list(errors)
        if bad:
            CONSOLE.print(f"[yellow]Warning: evaluating the {' and the '.join(bad)} frames stops; training does not.")
        if train.diagnosis.verdict == "wrong":
            raise SystemExit(1)


def frame_sets(folder: Path, parser: DataParserConfig) -> dict[str, tuple[str, DataParserConfig]]:
    """Split and data parser of each set of frames that a folder has.

    Args:
        folder: The recording's folder.
        parser: Its format, with options.
    """
    parser = deepcopy(parser)
    parser.data = folder
    sets = {"train": ("train", parser), "held-out": ("test", parser)}
    if isinstance(parser, InstantAvatarDataParserConfig):
        parser.eval_set = "heldout"
        if (folder / "novel").is_dir():
            novel = deepcopy(parser)
            novel.eval_set = "novel"
            sets["novel"] = ("test", novel)
    return sets


def check_set(name: str, split: str, parser: DataParserConfig) -> Section:
    """Read and check one set of frames.

    Args:
        name: Of the set, for the page.
        split: As data parsers name it.
        parser: The folder's data parser.

    Raises:
        InputError: A file cannot be used.
    """
    outputs = parser.setup().get_dataparser_outputs(split)
    dataset = AvatarDataset(outputs)
    names = [path.name for path in outputs.image_filenames]
    recording = read_recording(dataset, "cuda" if torch.cuda.is_available() else "cpu")
    diagnosis = diagnose(recording)
    if diagnosis.verdict == "good":
        description = f"The posed body {diagnosis.means}."
    else:
        description = f"Expected the posed body where the masks are, {describe(diagnosis, names)}. {diagnosis.advice}."
    figures = {title: (index, dataset.get_numpy_image(index)) for title, index in telling_frames(diagnosis).items()}
    return Section(name, names, recording, diagnosis, figures, description)


def _print_table(sections: list[Section], errors: dict[str, str]) -> None:
    table = Table("frames", "mask covered", "joints inside", "verdict", "suspected change")
    for section in sections:
        diagnosis, means = section.diagnosis, section.diagnosis.means
        change = "-" if diagnosis.change is None else diagnosis.change.words
        color = _COLORS[diagnosis.verdict]
        table.add_row(
            f"{section.name} ({len(section.frame_names)})",
            f"{100 * means.coverage:.0f} %",
            f"{100 * means.joints:.0f} %",
            f"[{color}]{diagnosis.verdict}[/]",
            change,
        )
    for name in errors:
        table.add_row(name, "-", "-", "[red]unreadable[/]", "-")
    CONSOLE.print(table)
    for section in sections:
        if section.diagnosis.verdict != "good":
            CONSOLE.print(f"{section.name}: {escape(section.description)}")
    for name, error in errors.items():
        CONSOLE.print(f"{name}: {escape(error)}")
