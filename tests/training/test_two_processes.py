"""Training by two processes: they learn the same avatar together, as good a one as one process learns.

On the CPU, and on the GPU if there is one, which the processes share.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, distributed

from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.training.processes import GradientExchange, _broadcast
from tests.commands import environment, run_folder

STEPS = 40
FRAMES = 8


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda:0", marks=needs_gpu)])
def runs(request: pytest.FixtureRequest, demo_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the files of `tests.two_processes`."""
    folder, device = tmp_path_factory.mktemp("runs"), request.param
    command = [sys.executable, "-m", "tests.two_processes", demo_subject, folder, STEPS, device]
    root = Path(__file__).resolve().parents[2]
    variables = environment(folder, gpu=device != "cpu")
    result = subprocess.run([*map(str, command)], cwd=root, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    return folder


def figures(runs: Path, processes: int, rank: int) -> dict:
    return json.loads((runs / f"{processes}" / f"{rank}.json").read_text())


def model(runs: Path, processes: int, rank: int) -> dict[str, Tensor]:
    return torch.load(runs / f"{processes}" / f"{rank}.pt", weights_only=True)


def test_both_end_with_the_same_field_poses_and_occupancy(runs: Path) -> None:
    first, second = model(runs, 2, 0), model(runs, 2, 1)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_poses_move_at_the_looks_of_either_process(runs: Path) -> None:
    (checkpoint,) = (run_folder(runs / "2") / "nerfstudio_models").iterdir()
    optimizer = torch.load(checkpoint, weights_only=True)["optimizers"]["poses"]
    looks = [state["steps"].flatten() for state in optimizer["state"].values() if len(state["steps"]) == FRAMES]
    # Poses are corrected from step 10 on: 30 steps of two processes are seven passes over eight frames, and a bit.
    assert any(set(steps.tolist()) == {7, 8} for steps in looks)


def test_each_has_seen_frames_of_its_own_and_the_losses_fall(runs: Path) -> None:
    losses = [figures(runs, 2, rank)["losses"] for rank in (0, 1)]
    assert all(len(one) == STEPS and sum(one[-5:]) < 0.5 * sum(one[:5]) for one in losses)
    assert all(first != second for first, second in zip(*losses, strict=True))


def test_avatar_is_as_good_as_that_of_one_process(runs: Path) -> None:
    assert figures(runs, 2, 0)["psnr"] > figures(runs, 1, 0)["psnr"] - 0.5


def test_steps_are_captured_by_each_on_a_gpu(runs: Path, request: pytest.FixtureRequest) -> None:
    on_gpu = request.node.callspec.params["runs"] != "cpu"
    assert [figures(runs, 2, rank)["is_captured"] for rank in (0, 1)] == [on_gpu, on_gpu]


def test_gradients_are_averaged_but_those_of_poses_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step has no gradient of, such as poses before they are corrected, stays so."""
    field, poses, unused = (torch.zeros(2, 3) for _ in range(3))
    model = SimpleNamespace(get_param_groups=lambda: {"field": [field, unused], "poses": [poses]})
    monkeypatch.setattr(distributed, "get_world_size", lambda: 4)
    monkeypatch.setattr(distributed, "all_reduce", lambda value: value.mul_(4))  # all have found the same
    exchange = GradientExchange(cast(InstantAvatarModel, model))
    given = torch.arange(6.0).view(3, 2).T  # lies column by column
    of_field, of_poses, none = exchange([field, poses, unused], [given.clone(), given, None])
    assert of_field is not None and torch.equal(of_field, torch.arange(6.0).view(3, 2).T)
    assert of_poses is not None and torch.equal(of_poses, 4 * torch.arange(6.0).view(3, 2).T)
    assert none is None


def test_checkpoint_is_written_once_and_fits_one_process(runs: Path) -> None:
    checkpoints = [run_folder(runs / f"{processes}") / "nerfstudio_models" for processes in (1, 2)]
    (one,), (two,) = ([*folder.iterdir()] for folder in checkpoints)
    assert one.name == two.name == f"step-{STEPS - 1:09d}.ckpt"
    assert not (run_folder(runs / "2") / ".checkpoint-partial").exists()
    saved, expected = torch.load(two, weights_only=True)["pipeline"], model(runs, 2, 0)
    assert {name.removeprefix("_model.") for name in saved if name.startswith("_model.")} == expected.keys()
    for name, value in expected.items():
        assert torch.equal(saved[f"_model.{name}"], value), name


def test_tensors_in_any_layout_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's eigenvectors lie column by column, which neither NCCL nor gloo takes."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # PyTorch puts the rank before errors, for good
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        values = torch.arange(6.0).view(2, 3)
        columns = values.clone().T
        _broadcast(columns)
        assert torch.equal(columns, values.T) and not columns.is_contiguous()
    finally:
        distributed.destroy_process_group()
