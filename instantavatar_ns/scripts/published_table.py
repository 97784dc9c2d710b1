"""`instant-avatar published-table`: PeopleSnapshot's four subjects, this package's figures beside published ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nerfstudio.utils.rich_utils import CONSOLE
from rich.table import Table

from instantavatar_ns.scripts.evaluate import Evaluate
from instantavatar_ns.scripts.run_folder import pipeline_of
from instantavatar_ns.training.run_config import load_run_config
from instantavatar_ns.utils.errors import InputError

SUBJECTS = ("male-3-casual", "male-4-casual", "female-3-casual", "female-4-casual")
Figures = tuple[float, float, float]  # PSNR, SSIM, LPIPS as the papers compute it
# InstantAvatar's tables 1 and 2; Anim-NeRF and the later methods by their papers' means, where subjects are not given.
PUBLISHED: dict[str, dict[str, Figures]] = {
    "Neural Body, 14 h": {
        "male-3-casual": (24.94, 0.9428, 0.0326),
        "male-4-casual": (24.71, 0.9469, 0.0423),
        "female-3-casual": (23.87, 0.9504, 0.0346),
        "female-4-casual": (24.37, 0.9451, 0.0382),
    },
    "Anim-NeRF, 13 h": {"mean": (28.89, 0.9682, 0.0206)},
    "InstantAvatar, 1 min": {
        "male-3-casual": (29.65, 0.9730, 0.0192),
        "male-4-casual": (27.97, 0.9649, 0.0346),
        "female-3-casual": (27.90, 0.9722, 0.0249),
        "female-4-casual": (28.92, 0.9692, 0.0180),
        "mean": (28.61, 0.9698, 0.0242),
    },
    "GoMAvatar, hours": {"mean": (30.68, 0.9767, 0.0213)},
    "GaussianAvatar, hours": {"mean": (30.98, 0.9791, 0.0143)},
}
MISSING = "no data"
_KEYS = ("psnr", "ssim", "lpips_published")


@dataclass
class PublishedTable:
    """Evaluate runs on PeopleSnapshot by the published protocol, and print the published table with a row of theirs.

    The protocol: the published split at 540×540, poses of the test frames fitted to their images, white background,
    8-bit, LPIPS-AlexNet of values from 0 to 1. A second row gives the figures without fitting. Subjects without a run
    are marked.
    """

    load_configs: tuple[Path, ...] = ()
    """config.yml of runs, at most one of each subject; the name of the data's folder tells the subject."""
    fit: Literal["published", "fast"] = "published"
    """Recipe by which test poses are fitted."""
    output: Path | None = None
    """JSON to write the runs' figures to."""
    lpips_backbone: Path | None = None
    """File with AlexNet's convolutions for LPIPS; by default torchvision downloads them."""

    def main(self) -> dict[str, dict[str, Figures]]:
        """Evaluate, print, and return the rows of the runs.

        Raises:
            InputError: A run's data is no subject of the table, or two runs have the same subject.
        """
        runs: dict[str, Path] = {}
        for path in self.load_configs:
            subject = subject_of(path)
            if subject in runs:
                raise InputError(path, f"expected one run of {subject}, found {runs[subject]} too", "Leave one out")
            runs[subject] = path
        rows: dict[str, dict[str, Figures]] = {"this package": {}, "this package, poses not fitted": {}}
        for subject, path in runs.items():
            command = Evaluate(load_config=path, sets=("heldout",), fit=self.fit, lpips_backbone=self.lpips_backbone)
            results = command.main()["heldout"]
            for row, suffix in zip(rows.values(), ("_fitted", ""), strict=True):
                psnr, ssim, lpips = (results.get(key + suffix, float("nan")) for key in _KEYS)
                row[subject] = (psnr, ssim, lpips)
        for row in rows.values():
            if len(row) == len(SUBJECTS):
                psnr, ssim, lpips = (sum(values) / len(SUBJECTS) for values in zip(*row.values(), strict=True))
                row["mean"] = (psnr, ssim, lpips)
        CONSOLE.print(table({**PUBLISHED, **rows}, set(rows)))
        if self.output is not None:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.output.write_text(json.dumps({"fit": self.fit, **rows}, indent=2) + "\n", encoding="utf8")
        return rows


def subject_of(run_config: Path) -> str:
    """The subject of PeopleSnapshot that a run was trained on.

    Raises:
        InputError: It was trained on something else.
    """
    datamanager = pipeline_of(load_run_config(run_config)).datamanager
    name = Path(datamanager.data or datamanager.dataparser.data).resolve().name
    if name not in SUBJECTS:
        message = f"expected a run on one of {', '.join(SUBJECTS)}, found data in a folder {name}"
        raise InputError(run_config, message, "Name the data's folder as PeopleSnapshot does")
    return name


def table(rows: dict[str, dict[str, Figures]], measured: set[str]) -> Table:
    """Lay out rows as text: PSNR / SSIM / LPIPS of each subject and their mean.

    Args:
        rows: Figures by subject, or "mean", by the name of the row.
        measured: Names of the rows that say which subjects they lack.
    """
    columns = (*SUBJECTS, "mean")
    result = Table("PSNR / SSIM / LPIPS as published", *(name.removesuffix("-casual") for name in columns))
    for name, row in rows.items():
        lacking = MISSING if name in measured else "–"
        cells = ["{:.2f} / {:.4f} / {:.4f}".format(*row[key]) if key in row else lacking for key in columns]
        result.add_row(name, *cells)
    return result
