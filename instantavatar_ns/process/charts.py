"""Line charts as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 150, 52, 26, 8


def line_chart(
    times: Sequence[float],
    values: Float[np.ndarray, "frames"],
    unit: str,
    limits: tuple[float, float] | None = None,
    marked: Sequence[int] = (),
) -> str:
    """Draw values over time.

    Args:
        times: Seconds, ascending.
        values: One for each; gaps where they are NaN.
        unit: What the values are, for the axis.
        limits: Lower and upper end of the axis; those of the values where there are none.
        marked: Indices of values to mark.
    """
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return "<p>No values.</p>"
    low, high = limits or (float(finite.min()), float(finite.max()))
    high = high if high > low else low + 1
    end = max(times[-1], times[0] + 1e-6)

    def place(time: float, value: float) -> tuple[float, float]:
        x = _LEFT + (time - times[0]) / (end - times[0]) * (_WIDTH - _LEFT - 10)
        share = min(max((value - low) / (high - low), 0), 1)
        return x, _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{escape(unit)} over time">'
    ]
    for value in (low, (low + high) / 2, high):
        _, y = place(times[0], value)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" font-size="12">{value:.4g}</text>'
        )
    for time in np.linspace(times[0], end, 6):
        x, _ = place(time, low)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="middle" font-size="12">{time:.3g} s</text>')
    for run in _runs(np.isfinite(values)):
        points = " ".join("{:.1f},{:.1f}".format(*place(times[i], float(values[i]))) for i in run)
        parts.append(f'<polyline points="{points}" fill="none" stroke="#2860b0" stroke-width="1.5"/>')
    for index in marked:
        if np.isfinite(values[index]):
            x, y = place(times[index], float(values[index]))
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#b02010"/>')
    parts.append("</svg>")
    return "".join(parts)


def _runs(known: np.ndarray) -> list[np.ndarray]:
    """Indices of each stretch without a gap."""
    indices = np.flatnonzero(known)
    return np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
