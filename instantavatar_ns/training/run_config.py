"""The configuration that a training run keeps on disk."""

from __future__ import annotations

from pathlib import Path

import yaml
from nerfstudio.engine.trainer import TrainerConfig

from instantavatar_ns.model_config import InstantAvatarModelConfig
from instantavatar_ns.utils.errors import InputError

_ADVICE = "Give the config.yml that ns-train wrote: outputs/<name>/instant-avatar/<time>/config.yml"


def load_run_config(path: Path) -> TrainerConfig:
    """Load the configuration of a run of this package, wherever its folder is now.

    Args:
        path: The run's `config.yml`, or a variant of it. As for nerfstudio's own commands, the file must come from
            somebody you trust: it names Python classes.

    Raises:
        InputError: There is no such file, or it is not a run of this package.
    """
    if not path.is_file():
        raise InputError(path, "expected the configuration of a run, found no such file", _ADVICE)
    try:
        config = yaml.load(path.read_text(encoding="utf8"), Loader=yaml.Loader)
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, ModuleNotFoundError) as error:
        raise InputError(path, f"expected a configuration that nerfstudio wrote ({error})", _ADVICE) from error
    if not isinstance(config, TrainerConfig) or not isinstance(config.pipeline.model, InstantAvatarModelConfig):
        raise InputError(path, "expected a run of instant-avatar, found another method's", _ADVICE)
    return config
