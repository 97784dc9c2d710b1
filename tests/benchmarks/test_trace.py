"""Counting in traces: one made by hand, and what the profiler writes."""

from __future__ import annotations

import pytest

from benchmarks.trace import BEFORE, STEP, count_steps


def event(category: str, name: str, start: float, length: float = 1.0) -> dict:
    return {"cat": category, "name": name, "ts": start, "dur": length}


def call(name: str, start: float) -> dict:
    return event("cuda_runtime", name, start)


MARKED = [
    *[event("user_annotation", BEFORE, start, 9) for start in (0, 100)],
    *[event("user_annotation", STEP, start, 50) for start in (10, 110)],
]


def test_calls_count_where_they_happen() -> None:
    figures = count_steps(
        [
            *MARKED,
            call("cudaLaunchKernel", 12),
            call("cudaLaunchKernelExC", 13),
            event("cuda_driver", "cuLaunchKernel", 120),
            call("cudaGraphLaunch", 121),
            *[call(name, 122) for name in ("cudaMemsetAsync", "cudaMemcpyAsync")],
            *[call(name, 123) for name in ("cudaStreamSynchronize", "cudaMemcpy", "cudaEventSynchronize")],
            call("cudaDeviceSynchronize", 105),  # of the refresh
            *[call("cudaLaunchKernel", 104) for _ in range(4)],
            call("cudaStreamSynchronize", 80),  # of the loop's writers
            call("cudaDeviceSynchronize", 200),  # of the profiler
            call("cudaDeviceSynchronize", -5),
            call("cudaStreamIsCapturing", 15),
            event("cpu_op", "aten::cudaLaunchKernel", 15),
        ],
        refreshes=1,
    )
    assert figures["launches"] == 3 / 2
    assert figures["graph_launches"] == 1 / 2
    assert figures["copies"] == 2 / 2
    assert figures["syncs"] == 3 / 2
    assert (figures["refresh_syncs"], figures["refresh_launches"]) == (1, 4)
    assert figures["loop_syncs"] == 1 / 2


def test_work_at_the_same_time_counts_once() -> None:
    work = [event("kernel", "a", 20, 4000), event("gpu_memset", "b", 1020, 1000), event("gpu_memcpy", "c", 5020, 2000)]
    before = event("kernel", "earlier", -500, 300)
    assert count_steps([*MARKED, *work, before], 0)["gpu_ms"] == pytest.approx(6 / 2)


def test_a_trace_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="found none"):
        count_steps([call("cudaLaunchKernel", 12)], 1)
