"""The configuration that a training run keeps on disk."""

from __future__ import annotations

from pathlib import Path

import yaml
from nerfstudio.engine.trainer import TrainerConfig

from instantavatar_ns.model_config import InstantAvatarModelConfig
from instantavatar_ns.utils.errors import InputError

_ADVICE = "Give the config.yml that ns-train wrote: outputs/<name>/instant-avatar/<time>/config.yml"


def load_run_config(path: Path, advice: str = _ADVICE) -> TrainerConfig:
    """Load the configuration of a run of this package, wherever its folder is now.

    Args:
        path: The run's `config.yml`, or a variant of it. As for nerfstudio's own commands, the file must come from
            somebody you trust: it names Python classes.
        advice: What to do if it is none, one sentence without a full stop.

    Raises:
        InputError: There is no such file, or it is not a run of this package.
    """
    if not path.is_file():
        raise InputError(path, "expected the configuration of a run, found no such file", advice)
    try:
        config = yaml.load(path.read_text(encoding="utf8"), Loader=yaml.Loader)
    except yaml.MarkedYAMLError as error:
        # Its text shows lines of the file; what was expected there means nothing to who did not write it.
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        message = f"expected a configuration that nerfstudio wrote, found a damaged file, unreadable{place}"
        raise InputError(path, message, advice) from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, ImportError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(path, f"expected a configuration that nerfstudio wrote ({reason})", advice) from error
    if not isinstance(config, TrainerConfig) or not isinstance(config.pipeline.model, InstantAvatarModelConfig):
        raise InputError(path, "expected a run of instant-avatar, found another method's", advice)
    return config
