"""Shares of GPUs and processors."""

import subprocess

import pytest

from instantavatar_ns.batch import workers
from instantavatar_ns.batch.workers import Node, avatars_per_gpu, gpu_megabytes, plan_workers
from instantavatar_ns.utils.errors import InputError


@pytest.mark.parametrize("per_gpu", [1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_shares_of_gpus_and_processors_fit(per_gpu, gpus):
    node = Node(16.0 * gpus, gpus)
    plan = plan_workers([node], 1000, per_gpu)
    assert plan.count == gpus * per_gpu
    assert per_gpu * plan.gpu <= 1 < (per_gpu + 1) * plan.gpu, "exactly that many on a GPU"
    assert plan.count * plan.cpus <= node.cpus and (plan.cpus < 1 or plan.cpus == int(plan.cpus))


def test_few_subjects_share_all_processors():
    assert plan_workers([Node(16, 0)], 2, 1).cpus == 8
    assert plan_workers([Node(16, 1)], 2, 6).cpus == 8
    assert plan_workers([Node(16, 0)], 50, 1) == plan_workers([Node(16, 0)], 16, 1)


def test_fewer_processors_than_workers():
    assert plan_workers([Node(4, 1)], 9, 6).cpus == 0.66
    assert plan_workers([Node(2, 0)], 9, 6, most=4) == workers.WorkerPlan(4, 0.5, 0.0)


def test_workers_of_a_cluster_fit_its_smallest_machine():
    plan = plan_workers([Node(32, 1), Node(6, 1), Node(64, 0)], 100, 6)
    assert (plan.count, plan.cpus) == (12, 1), "machines without a GPU are left to others"
    assert plan_workers([Node(32, 1), Node(6, 1)], 100, 6, most=5).count == 5


def test_no_processor():
    with pytest.raises(InputError, match="found 1 machines without"):
        plan_workers([Node(0, 0)], 3, 6)


@pytest.mark.parametrize(("megabytes", "count"), [(None, 6), (2000, 1), (8192, 3), (24_000, 6), (143_000, 6)])
def test_avatars_fit_into_the_memory(megabytes, count):
    assert avatars_per_gpu(megabytes) == count


@pytest.mark.parametrize(("told", "megabytes"), [("81559\n24564\n", 24564.0), ("[N/A]\n", None), ("", None)])
def test_the_smallest_gpu_counts(monkeypatch, told, megabytes):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, told, ""))
    assert gpu_megabytes() == megabytes
