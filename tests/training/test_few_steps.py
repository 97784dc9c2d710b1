"""Advice for trainings that end in the noise of their beginning."""

from __future__ import annotations

from instantavatar_ns.config import instant_avatar, instant_avatar_lite
from instantavatar_ns.trainer import few_steps


def test_few_steps_are_advised_to_be_large_and_of_all_rays() -> None:
    said = few_steps(instant_avatar.config, 600)
    assert said.startswith("--pipeline.model.density-noise-steps 200 --pipeline.model.empty-steps 100")
    assert said.endswith("--optimizers.field.optimizer.lr 0.01 --pipeline.datamanager.late-rays-start 0")
    assert few_steps(instant_avatar_lite.config, 60).endswith("--pipeline.model.pose-start 10"), "its steps are large"
