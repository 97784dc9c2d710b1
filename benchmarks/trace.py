"""What training steps ask of the GPU: launches, copies, synchronisations and work, counted in a trace of the profiler.

Regions of the trace are marked by name: `before`, nerfstudio's callbacks before a step, of which the refresh of the
occupancy is one; `step`, from there to the end of its last callback. What lies between two steps is nerfstudio's loop:
its writers read the losses of every tenth step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import Any

BEFORE, STEP = "callbacks before a step", "step"
_BLOCKING = ("cudaMemcpy", "cuMemcpyDtoH_v2")  # copies that block the host: they are not asynchronous
_NAME_LENGTH = 160  # of a kernel; those of PyTorch's templates take several lines
_RUNTIME, _WORK = ("cuda_runtime", "cuda_driver"), ("kernel", "gpu_memcpy", "gpu_memset")


def count_steps(events: list[dict[str, Any]], refreshes: int) -> dict[str, float]:
    """Figures of one step, and of one refresh of the occupancy.

    Args:
        events: The `traceEvents` of a Chrome trace with both regions marked.
        refreshes: How often the occupancy was refreshed meanwhile.

    Returns:
        `launches` (kernels launched one by one), `graph_launches`, `copies` (asynchronous copies and fills) and
        `syncs` a step; the same with `refresh_` in front for a refresh, and `loop_syncs` between steps, a step;
        `gpu_ms`, the time a step that the GPU was at work, refreshes included.

    Raises:
        ValueError: No step is marked.
    """
    regions = _regions(events)
    steps = regions[STEP]
    first, last = _begin(regions), steps[-1][1]
    counts: Counter[str] = Counter()
    for event in events:
        kind = _kind(event["name"]) if event.get("cat") in _RUNTIME else None
        if kind is None or not first <= event["ts"] <= last:
            continue
        place = next((name for name, spans in regions.items() if _within(event["ts"], spans)), "loop")
        counts[{BEFORE: "refresh_", STEP: "", "loop": "loop_"}[place] + kind] += 1
    busy = [span for category in _WORK for span in _spans(events, category) if first <= span[0]]
    per_step = {name: counts[name] / len(steps) for name in ("launches", "graph_launches", "copies", "syncs")}
    per_refresh = {f"refresh_{name}": counts[f"refresh_{name}"] / max(refreshes, 1) for name in per_step}
    return {
        **per_step,
        **per_refresh,
        "loop_syncs": counts["loop_syncs"] / len(steps),
        "gpu_ms": _covered(busy) / 1000 / len(steps),
    }


def busiest_kernels(events: list[dict[str, Any]], most: int = 10) -> list[dict[str, Any]]:
    """Kernels that the GPU spent most time in, refreshes of the occupancy included, the busiest first.

    Args:
        events: As of `count_steps`.
        most: How many.

    Returns:
        `name` (that of a template may be cut), `ms` and `launches`, both a step.

    Raises:
        ValueError: No step is marked.
    """
    regions = _regions(events)
    first, steps = _begin(regions), len(regions[STEP])
    microseconds: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "kernel" and event["ts"] >= first:
            name = event["name"][:_NAME_LENGTH]
            microseconds[name] += event.get("dur", 0)
            launches[name] += 1
    return [
        {"name": name, "ms": time / 1000 / steps, "launches": launches[name] / steps}
        for name, time in microseconds.most_common(most)
    ]


def _regions(events: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    regions = {name: _spans(events, "user_annotation", name) for name in (BEFORE, STEP)}
    if not regions[STEP]:
        raise ValueError(f"expected steps marked {STEP!r} in the trace, found none")
    return regions


def _begin(regions: dict[str, list[tuple[float, float]]]) -> float:
    return min(start for spans in regions.values() for start, _ in spans)


def _kind(name: str) -> str | None:
    if name.startswith(("cudaGraphLaunch", "cuGraphLaunch")):
        return "graph_launches"
    if name.startswith(("cudaLaunch", "cuLaunch")):
        return "launches"
    if name in _BLOCKING or name.endswith("Synchronize"):
        return "syncs"
    if name.startswith(("cudaMemcpy", "cudaMemset", "cuMemcpy", "cuMemset")):
        return "copies"
    return None


def _spans(events: list[dict[str, Any]], category: str, name: str | None = None) -> list[tuple[float, float]]:
    """Begin and end of events, microseconds, in order."""
    chosen = (event for event in events if event.get("cat") == category and name in (None, event["name"]))
    return sorted((event["ts"], event["ts"] + event.get("dur", 0)) for event in chosen)


def _within(time: float, spans: list[tuple[float, float]]) -> bool:
    index = bisect_right(spans, (time, float("inf"))) - 1
    return index >= 0 and time <= spans[index][1]


def _covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of spans."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
