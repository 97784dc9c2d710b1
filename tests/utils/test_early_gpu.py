"""When CUDA's context is made ahead of PyTorch, and how; no GPU is needed."""

from __future__ import annotations

import ctypes

import pytest

from instantavatar_ns.scripts.main import OF_A_RUN
from instantavatar_ns.utils import early_gpu


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (["/env/bin/instant-avatar", "train", "--data", "person"], True),
        (["/env/bin/instant-avatar", "train", "instant-avatar-wild", "--data", "person"], True),
        (["/env/bin/instant-avatar", "train", "--help"], False),
        (["/env/bin/instant-avatar", "train", "--machine.device-type", "cpu", "--data", "person"], False),
        (["/env/bin/instant-avatar", "train", "--machine.num-devices=2", "--data", "person"], False),
        (["/env/bin/instant-avatar", "export", "--load-config", "run/config.yml"], True),
        (["/env/bin/instant-avatar", "animate", "--help"], False),
        (["/env/bin/instant-avatar", "check", "--data", "train"], False),
        (["/env/bin/ns-train", "instant-avatar", "--data", "person"], False),
        (["/env/bin/pytest", "train"], False),
        ([""], False),
        ([], False),
    ],
)
def test_only_what_uses_the_first_gpu_wants_it(command: list[str], wanted: bool) -> None:
    assert early_gpu.is_wanted(command) == wanted


def test_commands_of_a_run_are_known() -> None:
    assert {*early_gpu.OTHERWISE} == {"train", *OF_A_RUN}


class Driver:
    """CUDA's driver as ctypes loads it."""

    def __init__(self, status: int) -> None:
        self.status, self.retained = status, []

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self.status

    def cuDevicePrimaryCtxRetain(self, context: object, device: int) -> int:
        self.retained.append(device)
        return 0


@pytest.mark.parametrize(("status", "retained"), [(0, [0]), (100, [])])
def test_context_is_that_of_the_first_device(monkeypatch: pytest.MonkeyPatch, status: int, retained: list[int]) -> None:
    driver = Driver(status)
    monkeypatch.setenv("CUDA_MODULE_LOADING", "LAZY")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    early_gpu.begin_context().join(60)
    assert driver.retained == retained


def test_no_driver_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    failed: list[object] = []
    monkeypatch.setenv("CUDA_MODULE_LOADING", "LAZY")
    monkeypatch.setattr(ctypes, "CDLL", absent)
    monkeypatch.setattr("threading.excepthook", failed.append)
    early_gpu.begin_context().join(60)
    assert failed == []
