"""The model's configuration: what it sets up, and files that name it."""

from __future__ import annotations

import pytest
import yaml

from instantavatar_ns import model, model_config
from instantavatar_ns.model_config import InstantAvatarModelConfig


def test_it_sets_up_the_model() -> None:
    assert InstantAvatarModelConfig()._target is model.InstantAvatarModel


@pytest.mark.parametrize("module", [model, model_config])
def test_config_files_find_it_in_either_module(module) -> None:
    """nerfstudio's config.yml names the class by its module; older runs by that of the model."""
    config = InstantAvatarModelConfig(pose_start=7)
    text = yaml.dump(config).replace(model_config.__name__ + ".", module.__name__ + ".")
    assert f"!!python/object:{module.__name__}.InstantAvatarModelConfig" in text
    assert yaml.load(text, Loader=yaml.Loader) == config
