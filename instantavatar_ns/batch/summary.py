"""The summary of a batch: a CSV file and a page with pictures, written after each subject and at the end."""

from __future__ import annotations

import csv
import io
import os
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from instantavatar_ns.batch.jobs import STAGES, Stage
from instantavatar_ns.batch.state import BatchState, SubjectState
from instantavatar_ns.batch.view import counts_text
from instantavatar_ns.utils.files import write_files

CSV_FILE, PAGE_FILE = "summary.csv", "summary.html"
_METRICS = ("psnr", "ssim", "lpips")
_SETS = ("heldout", "novel")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; color: #222; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3em .7em; border-bottom: 1px solid #ddd; vertical-align: middle; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.failed td { background: #fdecea; }
img { height: 120px; display: block; }
small { color: #666; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd; } th, td { border-color: #444; }
  tr.failed td { background: #4a1f1b; } small { color: #aaa; }
}
"""


def write_summary(state: BatchState) -> Path:
    """Write both files into the output's folder, and return the page's path; each appears whole."""
    rows = [summary_row(subject) for subject in state.subjects.values()]
    files = {CSV_FILE: _csv(rows).encode("utf8"), PAGE_FILE: _page(state, rows).encode("utf8")}
    write_files(state.output, files)
    return state.output / PAGE_FILE


def summary_row(subject: SubjectState) -> dict[str, Any]:
    """Return a subject's row of the CSV file; empty where there is nothing to say."""
    row: dict[str, Any] = {"subject": subject.job.name, "state": subject.status}
    row["failed stage"] = subject.stage if subject.status == "failed" else ""
    row["cause"] = subject.cause
    for frames in _SETS:
        for metric in _METRICS:
            value = subject.metric(metric, frames)
            row[f"{frames} {metric}"] = "" if value is None else round(value, 4)
    for stage in STAGES:
        record = subject.records.get(stage)
        row[f"{stage} seconds"] = "" if record is None else round(record.seconds, 2)
    row["seconds"] = round(subject.seconds, 2)
    last = next(reversed(subject.records.values()), None)
    row["where"] = subject.place or (last.place if last else "")
    row["method"], row["data"] = subject.job.method, str(subject.job.data)
    row["config"] = str(subject.folder.run.absolute() / "config.yml") if "train" in subject.records else ""
    row["mesh"], row["video"] = _file_of(subject, "export"), _file_of(subject, "animate")
    return row


def _file_of(subject: SubjectState, stage: Stage) -> str:
    """File that a stage has made; empty before."""
    return subject.records[stage].facts.get("file", "") if stage in subject.records else ""


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _page(state: BatchState, rows: Sequence[dict[str, Any]]) -> str:
    title = f"{state.output.name}: {counts_text(state)}"
    numbers = {
        f"{frames} {metric}": f"{name} {metric.upper()}"
        for frames, name in zip(_SETS, ("held-out", "novel"), strict=True)
        for metric in _METRICS
    }
    numbers = {key: label for key, label in numbers.items() if any(row[key] != "" for row in rows)}
    numbers["seconds"] = "seconds"
    head = "".join(f'<th class="number">{escape(label)}</th>' for label in numbers.values())
    body = "".join(
        _row(subject, row, numbers, state.output) for subject, row in zip(state.subjects.values(), rows, strict=True)
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        "<p>Pictures show a held-out frame, the truth left and the avatar right.</p>"
        f"<table><tr><th></th><th>subject</th><th>state</th>{head}<th>files</th></tr>{body}</table></body></html>\n"
    )


def _row(subject: SubjectState, row: dict[str, Any], numbers: dict[str, str], output: Path) -> str:
    picture = ""
    if "evaluate" in subject.records and subject.folder.picture.is_file():
        data = b64encode(subject.folder.picture.read_bytes()).decode()
        picture = f'<img alt="{escape(subject.job.name)}" src="data:image/jpeg;base64,{data}">'
    state = escape(row["state"])
    if subject.status == "failed":
        state = f"{escape(row['failed stage'])} failed<br><small>{escape(row['cause'])}</small>"
    cells = "".join(f'<td class="number">{_number(row[key])}</td>' for key in numbers)
    paths = {"run": subject.folder.run, "logs": subject.folder.folder, "mesh": row["mesh"], "video": row["video"]}
    files = " ".join(_link(name, path, output) for name, path in paths.items() if path and Path(path).exists())
    name = f"{escape(subject.job.name)}<br><small>{escape(row['data'])}</small>"
    return f'<tr class="{subject.status}"><td>{picture}</td><td>{name}</td><td>{state}</td>{cells}<td>{files}</td></tr>'


def _link(name: str, path: Path | str, start: Path) -> str:
    return f'<a href="{escape(quote(os.path.relpath(path, start)))}">{name}</a>'


def _number(value: float | str) -> str:
    return "–" if value == "" else f"{value:.4g}"
