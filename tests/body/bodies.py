"""Small SMPL-format bodies for tests."""

from __future__ import annotations

import numpy as np

PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]


def random_body(seed: int = 0, num_joints: int = 24, num_vertices: int = 60) -> dict[str, np.ndarray]:
    """A cloud of vertices with every array of an SMPL file filled with random numbers of the right shape."""
    random = np.random.default_rng(seed)
    parents = PARENTS[:num_joints] + list(range(23, num_joints - 1))
    weights = random.random((num_vertices, num_joints)) ** 8
    regressor = random.random((num_joints, num_vertices)) * (random.random((num_joints, num_vertices)) < 0.3)
    return {
        "v_template": random.normal(size=(num_vertices, 3)),
        "f": random.integers(0, num_vertices, (40, 3)),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, *parents[1:]], range(num_joints)]),
        "shapedirs": random.normal(size=(num_vertices, 3, 10)) * 0.1,
        "posedirs": random.normal(size=(num_vertices, 3, 9 * (num_joints - 1))) * 0.01,
    }
