"""Counting in traces: one made by hand, and what the profiler writes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.trace import BEFORE, STEP, busiest_kernels, count_steps


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


def test_the_busiest_kernels_come_first() -> None:
    work = [
        *[event("kernel", "often", 20 + time, 100) for time in range(6)],
        event("kernel", "long", 30, 2000),
        event("kernel", "short", 40, 1),
        event("kernel", "long", 90_000, 3000),  # the GPU is behind the host
        event("kernel", "long", -500, 300),
        event("gpu_memset", "fill", 50, 9000),
        event("kernel", "template<" + 1000 * "x", 60, 4),
    ]
    kernels = busiest_kernels([*MARKED, *work], most=3)
    assert [kernel["name"][:8] for kernel in kernels] == ["long", "often", "template"]
    assert [kernel["ms"] for kernel in kernels] == pytest.approx([2.5, 0.3, 0.002])
    assert [kernel["launches"] for kernel in kernels] == [1, 3, 0.5]
    assert len(kernels[2]["name"]) < 200


@pytest.mark.parametrize("read", [lambda events: count_steps(events, 1), busiest_kernels])
def test_a_trace_without_steps_is_refused(read: Callable[[list[dict]], object]) -> None:
    with pytest.raises(ValueError, match="found none"):
        read([call("cudaLaunchKernel", 12)])
