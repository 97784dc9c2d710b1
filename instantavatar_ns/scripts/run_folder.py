"""A finished run's avatar, and variants of the run's configuration.

nerfstudio's commands take a run's `config.yml` and no option that changes the model or the data, but any file will do
as long as the folder of the checkpoints follows from it. So what a command should see otherwise (another motion, other
frames) is written into a copy of the configuration beneath the run, and the stock command is given that copy.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from nerfstudio.engine.trainer import TrainerConfig

from instantavatar_ns.motion.free_motions import find_motion
from instantavatar_ns.pipeline import AvatarPipeline, AvatarPipelineConfig
from instantavatar_ns.training.run_config import load_run_config
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import written_whole
from instantavatar_ns.utils.later_imports import imported_later


def pipeline_of(config: TrainerConfig) -> AvatarPipelineConfig:
    """The pipeline's part of a configuration that `load_run_config` returned."""
    assert isinstance(config.pipeline, AvatarPipelineConfig)
    return config.pipeline


def open_run(run_config: Path) -> tuple[AvatarPipeline, Path]:
    """Load a run's avatar as nerfstudio's `eval_setup` does, but without the import of all methods there are.

    Args:
        run_config: The run's `config.yml`, or a variant of it.

    Returns:
        The pipeline, for inference, and the checkpoint that was loaded.

    Raises:
        InputError: It is no run of this package.
    """
    with imported_later():
        from nerfstudio.utils.eval_utils import eval_load_checkpoint
    config = load_run_config(run_config)
    config.load_dir = config.get_checkpoint_dir()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = config.pipeline.setup(device=device, test_mode="inference")
    assert isinstance(pipeline, AvatarPipeline)
    pipeline.eval()
    return pipeline, eval_load_checkpoint(config, pipeline)[0]


def write_variant(run_config: Path, name: str, edit: Callable[[AvatarPipelineConfig], None]) -> Path:
    """Write a variant of a run's configuration beneath the run; an earlier variant of that name is replaced.

    Args:
        run_config: The run's `config.yml`.
        name: Folder of the variant, relative to the run's.
        edit: Changes the configuration of data and model.

    Returns:
        Path of the variant, with which nerfstudio's commands work from any directory.

    Raises:
        InputError: It is no run of this package, or its data is not where it was.
    """
    config = load_run_config(run_config)
    pipeline = pipeline_of(config)
    run = run_config.resolve().parent
    # The run's folder is <output_dir>/<experiment>/<method>/<timestamp>; it may have been moved since.
    config.output_dir, config.experiment_name, config.timestamp = run.parents[2], run.parents[1].name, run.name
    datamanager = pipeline.datamanager
    data = datamanager.data or datamanager.dataparser.data
    if not Path(data).exists():
        raise InputError(
            data, f"expected the data that {run_config} was trained on", "Put it back, or run from the same directory"
        )
    datamanager.data = datamanager.dataparser.data = Path(data).resolve()
    model = pipeline.model
    if model.motion is not None:
        model.motion = find_motion(model.motion).resolve()
    for option in ("lpips_backbone", "vgg_backbone", "unseen_views"):
        file = getattr(model, option)
        if file is not None:
            setattr(model, option, file.resolve())
    edit(pipeline)
    path = run / name / "config.yml"
    with written_whole(path) as partial:
        partial.write_text(yaml.dump(config), encoding="utf8")
    return path
