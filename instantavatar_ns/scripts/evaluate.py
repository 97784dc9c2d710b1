"""`instant-avatar evaluate`: the figures of a run, on held-out frames and on a motion that was not trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, cast

from nerfstudio.utils.rich_utils import CONSOLE
from rich.table import Table

from instantavatar_ns.check.guard import CheckMode
from instantavatar_ns.data.datamanager import AvatarDataManager
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.pipeline import AvatarPipeline, AvatarPipelineConfig
from instantavatar_ns.scripts.run_folder import open_run, pipeline_of, write_variant
from instantavatar_ns.training.run_config import load_run_config
from instantavatar_ns.utils.files import written_whole

EvalSet = Literal["heldout", "novel"]
COLUMNS = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS", "lpips_published": "LPIPS as published", "fps": "images/s"}


@dataclass
class Evaluate:
    """Evaluate a run on each set of frames, as ns-eval does on one, and print one table.

    Metrics are those of the published tables: whole image on white, 8-bit. Each set's JSON is that of ns-eval: averages
    and, under `frames`, every image's values. With `fit`, poses are fitted to the evaluated images besides, and the
    figures that come of it stand in a row and under names of their own (`psnr_fitted`).
    """

    load_config: Path
    """The run's config.yml."""
    sets: tuple[EvalSet, ...] | None = None
    """Frames to evaluate: "heldout", "novel" (the data's novel/ folder). By default both, where there is a novel/."""
    output_dir: Path | None = None
    """Folder for <set>.json and the images; by default eval/ in the run's folder."""
    fit: Literal["off", "published", "fast"] = "off"
    """Evaluate fitted poses too: by the published tables' recipe, or a faster one that moves them farther."""
    heldout_poses: str | None = None
    """Name of the poses of the held-out frames, such as "truth"; by default those the run was configured with."""
    check_data: CheckMode | None = None
    """Stop, warn, or go on without a check ("off") where the posed body does not lie where the masks are; by default as
    the run was configured."""
    lpips_backbone: Path | None = None
    """File with AlexNet's convolutions for LPIPS; by default torchvision downloads them."""

    def main(self) -> dict[str, dict]:
        """Evaluate, and return each set's results.

        Raises:
            InputError: The run or its data cannot be used.
        """
        output_dir = self.output_dir or self.load_config.parent / "eval"
        names = self.sets or self._sets_of_run()
        opened = "novel" if "novel" in names else "heldout"  # beside the novel poses a model has the held-out ones
        variant = write_variant(self.load_config, f"eval/{opened}", partial(self._edit, opened))
        pipeline, checkpoint = open_run(variant)
        config = load_run_config(variant)
        facts = {"experiment_name": config.experiment_name, "method_name": config.method_name}
        results = {}
        for name in names:
            _show(pipeline, name)
            results[name] = pipeline.get_average_eval_image_metrics(output_path=output_dir / name, get_std=True)
            path = output_dir / f"{name}.json"
            with written_whole(path) as partial_file:
                whole = {**facts, "checkpoint": str(checkpoint), "results": results[name]}
                partial_file.write_text(json.dumps(whole, indent=2), encoding="utf8")
            CONSOLE.print(f"Saved results to: {path}")
        print_results(results)
        return results

    def _sets_of_run(self) -> tuple[EvalSet, ...]:
        datamanager = pipeline_of(load_run_config(self.load_config)).datamanager
        data = Path(datamanager.data or datamanager.dataparser.data)
        has_novel = (data / "novel").is_dir() and isinstance(datamanager.dataparser, InstantAvatarDataParserConfig)
        return ("heldout", "novel") if has_novel else ("heldout",)

    def _edit(self, name: EvalSet, pipeline: AvatarPipelineConfig) -> None:
        dataparser = pipeline.datamanager.dataparser
        if isinstance(dataparser, InstantAvatarDataParserConfig):
            dataparser.eval_set = name
            dataparser.heldout_poses = self.heldout_poses or dataparser.heldout_poses
        pipeline.fit_poses = self.fit
        pipeline.check_data = self.check_data or pipeline.check_data
        if self.lpips_backbone is not None:
            pipeline.model.lpips_backbone = self.lpips_backbone.resolve()


def _show(pipeline: AvatarPipeline, name: EvalSet) -> None:
    """Let a pipeline for inference evaluate a set of frames, whose poses its model has.

    Args:
        pipeline: To change.
        name: Of the set.
    """
    config = cast(AvatarDataManager, pipeline.datamanager).config
    if isinstance(config.dataparser, InstantAvatarDataParserConfig) and config.dataparser.eval_set != name:
        other = replace(config, dataparser=replace(config.dataparser, eval_set=name))
        pipeline.datamanager = other.setup(device=pipeline.device, test_mode="inference")
    pipeline.datamanager.setup_eval()


def print_results(results: dict[str, dict]) -> None:
    """Print a table of the averages of each set."""
    table = Table("frames", *COLUMNS.values())
    for name, values in results.items():
        for suffix, note in (("", ""), ("_fitted", ", poses fitted to the images")):
            cells = [f"{values[key + suffix]:.4g}" if key + suffix in values else "-" for key in COLUMNS]
            if f"psnr{suffix}" in values:
                table.add_row(f"{name} ({len(values['frames'])}){note}", *cells)
    CONSOLE.print(table)
    for name, values in results.items():
        if "psnr_unseen" in values:
            CONSOLE.print(
                f"{name}: {100 * values['unseen_share']:.0f} % of the person's pixels show what no training view saw; "
                f"PSNR of these {values['psnr_unseen']:.1f}, of the person's others {values['psnr_seen']:.1f}"
            )
