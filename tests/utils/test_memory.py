"""Memory of the host: how much is free, and what is said where it does not suffice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from instantavatar_ns.utils import memory
from instantavatar_ns.utils.errors import InputError

CPU = torch.device("cpu")
TOO_MUCH = 1 << 58  # bytes: more than can be addressed


def test_a_container_leaves_what_its_limit_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    unlimited = memory.free_bytes(CPU)
    for name, text in (("max", "5000\n"), ("current", "3000\n"), ("stat", "anon 1000\ninactive_file 400\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.free_bytes(CPU) == 2400 < unlimited
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes(CPU) > 2400


@pytest.mark.parametrize("in_host_memory", [False, True])
def test_joined_parts_are_freed(in_host_memory: bool) -> None:
    parts = [torch.arange(count * 2, dtype=torch.int32).view(count, 2) for count in (3, 0, 5)]
    expected = torch.cat(parts)
    assert torch.equal(memory.join(parts, CPU, in_host_memory), expected) and not parts
    assert memory.join([torch.zeros(0, 4)], CPU, in_host_memory).shape == (0, 4)


@pytest.mark.parametrize("take", [partial(torch.empty, dtype=torch.uint8), partial(np.empty, dtype=np.uint8)])
def test_lack_of_memory_comes_with_a_way_out(take: Callable[[int], object]) -> None:
    with pytest.raises(InputError, match=r"memory of the host: .*--downscale.*--train-frames"):
        with memory.lack_of_memory_explained("cpu"):
            take(TOO_MUCH)


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), memory.lack_of_memory_explained("cpu"):
        raise RuntimeError("something else")


def test_too_little_memory_is_told_before_it_is_taken() -> None:
    memory.check_host_memory("frames", 1000)
    with pytest.raises(InputError, match=r"frames: expected .* GB .*--downscale"):
        memory.check_host_memory("frames", TOO_MUCH)


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "cpu"),
        (RuntimeError("CUDA error: out of memory"), "cpu"),
        (RuntimeError("out of memory (2)"), "the host"),  # of cudaHostRegister
    ],
)
def test_lack_of_memory_names_the_place(error: RuntimeError, place: str) -> None:
    with pytest.raises(InputError, match=f"^memory of {place}: "), memory.lack_of_memory_explained("cpu"):
        raise error
