"""The jobs of a batch: one for each subject, read from a list of folders or from a YAML file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from instantavatar_ns.utils.errors import InputError

Stage = Literal["train", "evaluate", "export", "animate"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which they are done."""
_SECTIONS = (*STAGES, "parse")
_ENTRIES = ("data", "name", "method", "parser", "steps", "motion", "skip", *_SECTIONS)
_SKIPPABLE: tuple[Stage, ...] = ("evaluate", "export")
Flags = dict[str, Any]
"""Values of a command's options by their names without dashes, such as "texture-size"."""


@dataclass(frozen=True)
class Job:
    """The work on one subject.

    Attributes:
        name: Name of the subject, and of its folder in the output.
        data: Folder of the recording, absolute.
        method: Method of nerfstudio, such as "instant-avatar".
        parser: Data parser, such as "instant-avatar-data".
        stages: Stages to do, in order.
        flags: Options of the commands, by stage, and under "parse" those of the data parser.
    """

    name: str
    data: Path
    method: str
    parser: str = "instant-avatar-data"
    stages: tuple[Stage, ...] = ("train", "evaluate", "export")
    flags: Mapping[str, Flags] = field(default_factory=dict)

    def settings(self, stage: Stage) -> dict[str, Any]:
        """All that a stage's result follows from, beside the stages before it, as JSON takes it."""
        settings: dict[str, Any] = {"options": self.flags.get(stage, {})}
        if stage == "train":
            settings |= {"data": str(self.data), "method": self.method, "parser": self.parser}
            settings["parser options"] = self.flags.get("parse", {})
        return settings

    def arguments(self, section: str) -> list[str]:
        """Options of a section as a command line has them; booleans are spelled out."""
        arguments = []
        for name, value in self.flags.get(section, {}).items():
            values = value if isinstance(value, list) else [value]
            arguments += [f"--{name}", *map(str, values)]
        return arguments


def read_jobs(sources: Sequence[Path], defaults: Mapping[str, Any]) -> list[Job]:
    """Return the job of each subject.

    Args:
        sources: Folders of recordings, or one YAML file.
        defaults: Values for all subjects that set no others, by the names of an entry of a YAML file.

    Raises:
        InputError: There are no subjects, an entry or an option is unknown, a folder is missing, or two subjects have
            the same name.
    """
    origin: Path | str = "subjects"
    entries: list[Any] = list(map(str, sources))
    if any(path.suffix.lower() in (".yaml", ".yml") for path in sources):
        if len(sources) > 1:
            message = f"expected folders, or one YAML file alone, found {len(sources)} arguments with a YAML file"
            raise InputError(origin, message, "Name the folders in the file, under subjects")
        origin = sources[0]
        of_file, entries = _read_file(sources[0])
        defaults = _merged(defaults, _checked_entry(origin, "defaults", of_file))
    if not entries:
        raise InputError(origin, "expected at least one subject, found none", "Give folders, or a file that lists some")
    jobs = [_job(origin, number, entry, defaults) for number, entry in enumerate(entries, 1)]
    missing = [str(job.data) for job in jobs if not job.data.is_dir()]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        message = f"expected the folder of each subject, found no such folder: {shown}"
        raise InputError(origin, message, "Correct the names; relative ones start from the current directory")
    by_name: dict[str, Path] = {}
    for job in jobs:
        key = job.name.casefold()  # some file systems know no difference
        if key in by_name:
            message = (
                f"expected a name of its own for each subject, found '{job.name}' for {by_name[key]} and {job.data}"
            )
            raise InputError(origin, message, "List them in a YAML file, with a name for each")
        by_name[key] = job.data
    return jobs


def _read_file(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Defaults and subjects of a YAML file."""
    advice = "See docs/batch.md for an example"
    if not path.is_file():
        raise InputError(path, "expected a YAML file that lists subjects, found no such file", "Check the name")
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        message = f"expected YAML, found what cannot be read ({' '.join(str(error).split())})"
        raise InputError(path, message, advice) from error
    if isinstance(content, list):
        content = {"subjects": content}
    if not isinstance(content, dict) or not isinstance(content.get("subjects"), list):
        raise InputError(path, "expected a list of subjects, or one under 'subjects', found neither", advice)
    _check_names(path, "the file", content, ("defaults", "subjects"))
    return content.get("defaults") or {}, content["subjects"]


def _job(origin: Path | str, number: int, entry: Any, defaults: Mapping[str, Any]) -> Job:
    if isinstance(entry, str):
        entry = {"data": entry}
    place = f"subject {number}"
    values = _merged(defaults, _checked_entry(origin, place, entry))
    if not isinstance(values.get("data"), str):
        raise InputError(
            origin, f"expected a folder as data of {place}, found {values.get('data')}", "Add data: FOLDER"
        )
    data = Path(values["data"]).expanduser().absolute()
    name = str(values.get("name") or data.name)
    if name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        message = f"expected a name that a folder can have and that starts with no dot for {place}, found {name!r}"
        raise InputError(origin, message, "Give it another name")
    flags = {section: values[section] for section in _SECTIONS if values.get(section)}
    if values.get("steps") is not None:
        flags["train"] = _steps_flags(origin, place, values["steps"]) | flags.get("train", {})
    if values.get("motion") is not None:
        flags["animate"] = {"motion": str(values["motion"])} | flags.get("animate", {})
    if "animate" in flags and "motion" not in flags["animate"]:
        raise InputError(origin, f"expected a motion for the video of {place}, found none", "Add motion: walk")
    skip = values.get("skip") or []
    skip = skip if isinstance(skip, list) else [skip]
    for stage in skip:
        if stage not in _SKIPPABLE:
            message = f"expected {' or '.join(_SKIPPABLE)} to be skipped in {place}, found {stage!r}"
            raise InputError(origin, message, "Training cannot be left out; a video is made where a motion is given")
    left_out = {*skip, *(() if "animate" in flags else ("animate",))}
    stages: list[Stage] = [stage for stage in STAGES if stage not in left_out]
    return Job(name, data, str(values["method"]), str(values["parser"]), tuple(stages), flags)


def _steps_flags(origin: Path | str, place: str, steps: Any) -> Flags:
    """Options of a training of that many steps, over which the learning rates decay."""
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise InputError(origin, f"expected a positive number of steps in {place}, found {steps!r}", "Give one")
    rates = {f"optimizers.{group}.scheduler.max-steps": steps for group in ("field", "poses")}
    return {"max-num-iterations": steps, **rates}


def _checked_entry(origin: Path | str, place: str, entry: Any) -> dict[str, Any]:
    """An entry whose names are known, with options named as commands name them."""
    if not isinstance(entry, dict):
        message = f"expected a folder or a mapping with data for {place}, found {entry!r}"
        raise InputError(origin, message, "See docs/batch.md for an example")
    _check_names(origin, place, entry, _ENTRIES)
    entry = dict(entry)
    for section in _SECTIONS:
        flags = entry.get(section)
        if flags is None:
            entry.pop(section, None)
            continue
        if not isinstance(flags, dict):
            message = f"expected options and their values under {section} of {place}, found {flags!r}"
            raise InputError(origin, message, "Write them as 'texture-size: 2048'")
        entry[section] = {str(name).replace("_", "-").lstrip("-"): value for name, value in flags.items()}
    return entry


def _check_names(origin: Path | str, place: str, entry: dict[Any, Any], known: Sequence[str]) -> None:
    for name in entry:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            advice = f"Did you mean {near[0]}" if near else f"Known are {', '.join(known)}"
            raise InputError(origin, f"expected a known name in {place}, found {name!r}", advice)


def _merged(defaults: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry over its defaults; options are merged one by one."""
    merged = {**defaults, **entry}
    for section in _SECTIONS:
        if section in defaults and section in entry:
            merged[section] = {**defaults[section], **entry[section]}
    return merged
