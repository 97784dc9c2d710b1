"""nerfstudio's pipeline, with the metrics of every frame beside their averages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig

from instantavatar_ns.data.datamanager import AvatarDataManagerConfig
from instantavatar_ns.model import InstantAvatarModel, InstantAvatarModelConfig


@dataclass
class AvatarPipelineConfig(VanillaPipelineConfig):
    """Configuration of the AvatarPipeline."""

    _target: type = field(default_factory=lambda: AvatarPipeline)
    """Class to instantiate."""
    datamanager: AvatarDataManagerConfig = field(default_factory=AvatarDataManagerConfig)
    """Frames and how rays are drawn from them."""
    model: InstantAvatarModelConfig = field(default_factory=InstantAvatarModelConfig)
    """The avatar."""


class AvatarPipeline(VanillaPipeline):
    """A `VanillaPipeline` whose `ns-eval` writes a list `frames` next to the averages."""

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ):
        """Averages over the evaluation images; with `get_std`, as `ns-eval` asks, each image's metrics too."""
        with cast(InstantAvatarModel, self.model).logging_image_metrics() as frames:
            metrics = super().get_average_eval_image_metrics(step, output_path, get_std)
        if get_std:  # during training the averages go to a writer of scalars
            assert self.datamanager.eval_dataset is not None
            names = [path.name for path in self.datamanager.eval_dataset.image_filenames]
            metrics["frames"] = [{"image": name, **values} for name, values in zip(names, frames, strict=True)]
        return metrics
