"""The model's configuration: what it sets up, and files that name it."""

from __future__ import annotations

import yaml

from instantavatar_ns import model
from instantavatar_ns.model_config import InstantAvatarModelConfig


def test_it_sets_up_the_model() -> None:
    assert InstantAvatarModelConfig()._target is model.InstantAvatarModel


def test_config_files_give_it_back() -> None:
    config = InstantAvatarModelConfig(pose_start=7)
    assert yaml.load(yaml.dump(config), Loader=yaml.Loader) == config


def test_avatar_is_as_large_as_it_says_and_starts_where_it_says() -> None:
    config = InstantAvatarModelConfig(hash_levels=5, renderer="torch", body_reach=0.07)
    sizes = config.avatar_sizes("cpu")
    assert (sizes.hash_levels, sizes.renderer, sizes.body_reach) == (5, "torch", None)
    config.occupancy_start = "body"
    assert config.avatar_sizes("cpu").body_reach == 0.07
