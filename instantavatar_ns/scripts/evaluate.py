"""`instant-avatar evaluate`: the figures of a run, on held-out frames and on a motion that was not trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.utils.rich_utils import CONSOLE
from rich.table import Table

from instantavatar_ns.scripts.run_folder import load_run_config, write_variant

EvalSet = Literal["heldout", "novel"]
COLUMNS = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS", "lpips_published": "LPIPS as published", "fps": "images/s"}


@dataclass
class Evaluate:
    """Run nerfstudio's ns-eval on each set of frames and print one table.

    Metrics are those of the published tables: whole image on white, 8-bit, without fitting the poses. Each set's JSON holds
    ns-eval's averages and, under `frames`, every image's values.
    """

    load_config: Path
    """The run's config.yml."""
    sets: tuple[EvalSet, ...] | None = None
    """Frames to evaluate: "heldout", "novel" (the data's novel/ folder). By default both, where there is a novel/."""
    output_dir: Path | None = None
    """Where to write <set>.json and the images; by default eval/ in the run's folder."""
    lpips_backbone: Path | None = None
    """File with AlexNet's convolutions for LPIPS; by default torchvision downloads them."""

    def main(self) -> dict[str, dict]:
        """Evaluate, and return each set's results."""
        output_dir = self.output_dir or self.load_config.parent / "eval"
        results = {}
        for name in self.sets or self._sets_of_run():
            config = write_variant(self.load_config, f"eval/{name}", lambda config, name=name: self._edit(config, name))
            json_path = output_dir / f"{name}.json"
            ComputePSNR(load_config=config, output_path=json_path, render_output_path=output_dir / name).main()
            results[name] = json.loads(json_path.read_text(encoding="utf8"))["results"]
        print_results(results)
        return results

    def _sets_of_run(self) -> tuple[EvalSet, ...]:
        datamanager = load_run_config(self.load_config).pipeline.datamanager
        data = Path(datamanager.data or datamanager.dataparser.data)
        has_novel = (data / "novel").is_dir() and hasattr(datamanager.dataparser, "eval_set")
        return ("heldout", "novel") if has_novel else ("heldout",)

    def _edit(self, config: TrainerConfig, name: EvalSet) -> None:
        if hasattr(config.pipeline.datamanager.dataparser, "eval_set"):
            config.pipeline.datamanager.dataparser.eval_set = name
        if self.lpips_backbone is not None:
            config.pipeline.model.lpips_backbone = self.lpips_backbone.resolve()


def print_results(results: dict[str, dict]) -> None:
    """Print a table of the averages of each set."""
    table = Table("frames", *COLUMNS.values())
    for name, values in results.items():
        cells = [f"{values[key]:.4g}" if key in values else "-" for key in COLUMNS]
        table.add_row(f"{name} ({len(values['frames'])})", *cells)
    CONSOLE.print(table)
