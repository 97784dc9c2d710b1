"""Training steps as CUDA graphs: the same losses and gradients as kernel by kernel."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.engine.optimizers import Optimizers
from torch import Tensor

from instantavatar_ns.data.datamanager import FrameStore
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.optimizers import FusedAdamConfig, PolynomialDecayConfig, RowAdamConfig
from instantavatar_ns.training.captured_step import ParameterUpdate, TrainingStep
from instantavatar_ns.utils.cuda_graph import CudaGraph, _no_garbage_collection
from tests.tiny import DEVICE, build, frame_store

STEPS = 6


@pytest.fixture(scope="module")
def frames_and_model(outputs: DataparserOutputs) -> tuple[FrameStore, InstantAvatarModel]:
    model = build(
        outputs,
        DEVICE,
        implementation="triton" if DEVICE == "cuda" else "torch",
        renderer="triton" if DEVICE == "cuda" else "torch",
        hash_levels=8,
        pose_start=4,
        # On a GPU samples lie in the buffers in another order each time, and which one gets which noise with it.
        density_noise_steps=0,
    )
    return frame_store(outputs, DEVICE, patch_size=8), model.train()


def run(frames: FrameStore, model: InstantAvatarModel, step_of, steps: int) -> list[dict[str, torch.Tensor]]:
    """Gradients of steps 1 to `steps` that all draw the same rays, after settling what is drawn from."""
    gradients = []
    rays, batch = frames.draw_rays(2, 128, step=0)
    for step in range(steps):
        model.update_to_step(step)
        frames.draw_rays(step % 3, 128, step=step) if DEVICE == "cuda" else None
        torch.manual_seed(step)
        model.zero_grad(set_to_none=True)
        result = step_of(rays, batch)
        sum(result.losses.values()).backward()
        found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        gradients.append(found | {"psnr": result.metrics["psnr"].clone()})
    return gradients


def test_replayed_steps_have_the_gradients_of_steps_that_run_as_they_are(frames_and_model) -> None:
    frames, model = frames_and_model
    step = TrainingStep(model)
    captured = run(frames, model, step, STEPS)
    as_they_are = run(frames, model, step._forward, STEPS)
    assert step.is_captured
    assert "pose_refinement.remainders" in captured[-1]
    for ours, theirs in zip(captured, as_they_are, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, atol=1e-4 * float(value.abs().max()), rtol=1e-3, msg=name)


def test_gradients_of_several_steps_add_up(frames_and_model) -> None:
    frames, model = frames_and_model
    rays, batch = frames.draw_rays(1, 128, step=3)
    step = TrainingStep(model)
    totals = []
    for step_of in (step._forward, step):
        step(rays, batch)
        model.zero_grad(set_to_none=True)
        for seed in range(2):
            torch.manual_seed(seed)
            sum(step_of(rays, batch).losses.values()).backward()
        totals.append(model.field.color_head.params.grad.clone())
    torch.testing.assert_close(*totals, atol=1e-4 * float(totals[0].abs().max()), rtol=1e-3)


def test_gradients_are_handed_out_where_the_graph_writes_them_and_outlive_the_next_replay(frames_and_model) -> None:
    frames, model = frames_and_model
    rays, batch = frames.draw_rays(1, 128, step=3)
    step = TrainingStep(model)
    params = [value for value in model.parameters() if value.numel()]
    buffers = [torch.empty_like(value) for value in params]

    def replay(settings, function):  # as a graph does: always into the same memory
        done = function()
        pairs = zip(buffers, done.gradients, strict=True)
        return done._replace(gradients=[None if new is None else kept.copy_(new) for kept, new in pairs])

    step._graph = replay  # pyright: ignore[reportAttributeAccessIssue]
    model.zero_grad(set_to_none=True)
    table, places = model.field.encoding.params, {buffer.data_ptr() for buffer in buffers}
    sum(step(rays, batch).losses.values()).backward()
    assert table.grad is not None and table.grad.data_ptr() in places
    first = table.grad.clone()
    losses = step(rays, batch).losses  # other numbers
    torch.testing.assert_close(table.grad, first, atol=0, rtol=0)
    sum(losses.values()).backward()
    model.zero_grad(set_to_none=True)
    sum(step(rays, batch).losses.values()).backward()
    assert table.grad.data_ptr() in places


def test_cells_of_a_replayed_refresh_are_those_of_one_that_runs_as_it_is(
    frames_and_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = frames_and_model
    cells = (model.canonical_occupancy.occs, model.canonical_occupancy.binaries, model.union_grid.binaries)
    before = [part.clone() for part in cells]
    middle = model.canonical_occupancy.aabbs.view(2, 3).mean(dim=0)
    ball = lambda points: (300.0 * ((points - middle).norm(dim=-1) < 0.3), points)  # noqa: E731
    monkeypatch.setattr(model.field, "density", ball)
    found = {}
    for captures in (False, True):
        monkeypatch.setattr(type(model.renderer), "supports_cuda_graphs", captures)
        for part, start in zip(cells, before, strict=True):
            part.copy_(start)
        for step in (100, 120, 140):
            torch.manual_seed(step)
            model.refresh_occupancy(step)
        found[captures] = [part.clone() for part in cells]
    assert model._cells._graph.is_captured
    assert not torch.equal(found[True][1], before[1]) and found[True][1].any()
    for ours, theirs in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_whole_steps_leave_the_parameters_that_nerfstudios_steps_leave(frames_and_model) -> None:
    frames, model = frames_and_model
    rays, batch = frames.draw_rays(2, 128, step=0)
    begin, ends, losses = deepcopy(model.state_dict()), [], []
    for whole in (False, True):
        model.load_state_dict(begin)
        decay = {"scheduler": PolynomialDecayConfig(max_steps=20)}
        configs = {"field": {"optimizer": FusedAdamConfig(), **decay}, "poses": {"optimizer": RowAdamConfig(), **decay}}
        optimizers = Optimizers(configs, model.get_param_groups())
        step, update = TrainingStep(model), ParameterUpdate([*optimizers.optimizers.values()], model.device)
        for number in range(2 * STEPS):
            model.update_to_step(number)
            frames.draw_rays(2, 128, step=number) if DEVICE == "cuda" else None
            torch.manual_seed(number)
            if whole:
                total, _ = step.train(rays, batch, update)
            else:
                optimizers.zero_grad_all()
                total = sum(step(rays, batch).losses.values())
                total.backward()
                optimizers.optimizer_step_all()
            optimizers.scheduler_step_all(number)
            losses.append(total.item())
        assert step.is_captured
        assert type(optimizers.optimizers["field"].param_groups[0]["lr"]) is float, "as checkpoints have it"
        ends.append([value.detach().clone() for value in model.parameters() if value.numel()])
    assert losses[2 * STEPS :] == pytest.approx(losses[: 2 * STEPS], rel=1e-2)
    model.load_state_dict(begin)
    starts = [value for value in model.parameters() if value.numel()]
    for start, theirs, ours in zip(starts, *ends, strict=True):
        moved = (theirs - start).norm()
        assert moved > 0 and (ours - theirs).norm() < (1e-6 if DEVICE == "cpu" else 0.05) * moved


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_step_is_few_kernels(frames_and_model) -> None:
    """Each takes two microseconds, whatever it does: a step of many small ones is bound by their number."""
    frames, model = frames_and_model
    rays, batch = frames.draw_rays(2, 128, step=0)
    model.update_to_step(model.config.pose_start)
    step = TrainingStep(model)
    counts = {}
    for name, work in (
        ("draw", lambda: frames._draw(128, False)),
        ("step", lambda: step._forward_backward(rays, batch)),
    ):
        work()
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            work()
            torch.cuda.synchronize()
        kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        counts[name] = len(kernels)
    assert counts["draw"] <= 12 and counts["step"] <= 220, counts


def test_optimizers_read_their_rates_from_the_device_while_they_are_captured() -> None:
    found = []
    for on_device in (False, True):
        table, rows = (torch.nn.Parameter(torch.ones(4, 3, device=DEVICE)) for _ in range(2))
        optimizers = [FusedAdamConfig(lr=0.1).setup(params=[table]), RowAdamConfig(lr=0.2).setup(params=[rows])]
        update = ParameterUpdate(optimizers, table.device)
        for number in range(3):
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] *= 0.5
            for parameter in (table, rows):
                parameter.grad = torch.full_like(parameter, number - 0.5)
            update.take_rates()
            with update.rates_on_device() if on_device else nullcontext():
                assert all(isinstance(each.param_groups[0]["lr"], Tensor) == on_device for each in optimizers)
                update()
            assert not any(isinstance(each.param_groups[0]["lr"], Tensor) for each in optimizers)
            assert not optimizers[0].param_groups[0]["capturable"]
        found.append(torch.stack([table, rows]).detach())
    torch.testing.assert_close(*found)


def test_graph_does_its_work_anew_at_each_call() -> None:
    source = torch.zeros(3, device=DEVICE)
    double = CudaGraph(lambda: 2 * source, source.device)
    for value in (1.0, 2.5):
        source.fill_(value)
        assert double().tolist() == [2 * value] * 3


def test_no_garbage_is_collected_in_a_capture() -> None:
    """An old model is a cycle: freed while another's kernels are captured, its graphs would end the capture."""
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            with pytest.raises(KeyError), _no_garbage_collection():
                assert not gc.isenabled()
                raise KeyError
            assert gc.isenabled() == enabled
        finally:
            gc.enable()


def test_graph_draws_new_random_numbers_that_follow_from_the_seed() -> None:
    generator = torch.Generator(device=DEVICE)
    draw = CudaGraph(lambda: torch.rand(4, device=DEVICE, generator=generator), torch.device(DEVICE), generator)
    drawn = []
    for seed in (1, 2, 1):
        generator.manual_seed(seed)
        drawn.append(draw().tolist())
    assert drawn[0] == drawn[2] != drawn[1]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_graph_works_on_a_gpu_that_is_not_the_current_one() -> None:
    device = torch.device("cuda", (torch.cuda.current_device() + 1) % torch.cuda.device_count())
    generator = torch.Generator(device=device)
    draw = CudaGraph(lambda: torch.rand(4, device=device, generator=generator), device, generator)
    drawn = []
    for seed in (1, 2, 1):
        generator.manual_seed(seed)
        drawn.append(draw().tolist())
    assert drawn[0] == drawn[2] != drawn[1]
    assert torch.cuda.current_device() != device.index
