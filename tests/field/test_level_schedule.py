"""Finer levels learn later."""

from itertools import pairwise

import torch

from instantavatar_ns.field.hash_encoding import FEATURES, HashEncoding, HashGrid
from instantavatar_ns.field.level_schedule import LevelSchedule


def test_levels_learn_one_after_the_other() -> None:
    torch.manual_seed(0)
    encoding = HashEncoding(HashGrid(levels=4, log2_entries=10))
    schedule = LevelSchedule(encoding, 100)
    bounds = torch.tensor([0, *encoding.grid.entries]).cumsum(0) * FEATURES
    found = []
    for step in (0, 50, 99, 100):
        schedule.update(step)
        encoding.zero_grad()
        encoding(torch.rand(64, 3)).square().sum().backward()
        gradient = encoding.params.grad
        assert gradient is not None
        found.append([bool(gradient[a:b].any()) for a, b in pairwise(bounds)])
    assert found == [[True, True, False, False], [True] * 3 + [False], [True] * 3 + [False], [True] * 4]


def test_adam_leaves_levels_alone_that_are_held_back() -> None:
    encoding = HashEncoding(HashGrid(levels=4, log2_entries=10))
    schedule = LevelSchedule(encoding, 100)
    optimizer, before = torch.optim.Adam(encoding.parameters(), lr=0.1, eps=1e-15), encoding.params.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        encoding(torch.rand(64, 3)).sum().backward()
        optimizer.step()
    first_closed = FEATURES * sum(encoding.grid.entries[: schedule.open_levels])
    moved = encoding.params.detach() != before
    assert moved[:first_closed].any() and not moved[first_closed:].any()
