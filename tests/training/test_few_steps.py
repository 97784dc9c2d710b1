"""Advice for trainings that end in the noise of their beginning."""

from __future__ import annotations

from instantavatar_ns.config import instant_avatar, instant_avatar_lite
from instantavatar_ns.trainer import few_steps


def test_few_steps_are_advised_to_be_large_and_of_all_rays() -> None:
    said = few_steps(instant_avatar.config, 600)
    given = dict(zip(said[::2], said[1::2], strict=True))
    assert given["--pipeline.model.density-noise-steps"] == "400" and given["--pipeline.model.pose-start"] == "100"
    assert given["--optimizers.field.optimizer.lr"] == "0.01" and given["--pipeline.datamanager.late-rays-start"] == "0"
    assert given["--pipeline.datamanager.surroundings-end"] == "300"
    assert given["--optimizers.field.scheduler.max-steps"] == given["--optimizers.poses.scheduler.max-steps"] == "600"
    assert "--optimizers.field.optimizer.lr" not in few_steps(instant_avatar_lite.config, 60), "its steps are large"
