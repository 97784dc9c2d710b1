"""From a phone's HDR video (HLG or PQ, wide gamut) to the colors of a common screen."""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

PQ, HLG = 16, 18
"""Numbers of the transfer functions of SMPTE ST 2084 and ARIB STD-B67 in a video (ITU-T H.273)."""
_WHITE = 203.0  # candela per square metre that white paper has in HDR (ITU-R BT.2408)
_PEAK = 1000.0  # of a display for HLG
# From BT.2020's primaries to BT.709's (ITU-R BT.2087).
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)
_KNEE = 0.8  # of white, from which on brighter light is compressed


def to_screen(image: UInt16[np.ndarray, "height width 3"], transfer: int) -> UInt8[np.ndarray, "height width 3"]:
    """Return sRGB of an HDR picture; what is brighter than white paper is compressed, not cut.

    Args:
        image: RGB of BT.2020, 16 bits.
        transfer: `PQ` or `HLG`.
    """
    light = _light(transfer)[image]
    if transfer == HLG:  # the system gamma of a display of 1000 candela, on brightness
        bright = light @ np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
        light = light * np.power(np.maximum(bright, 1e-6), 0.2)[..., None] * np.float32(_PEAK / _WHITE)
    light = np.maximum(light @ _TO_709.T, 0)
    peak = light.max(axis=2, keepdims=True)
    over = np.maximum(peak - _KNEE, 0)
    compressed = np.minimum(peak, _KNEE) + (1 - _KNEE) * over / (over + 1 - _KNEE)
    light = light * (compressed / np.maximum(peak, 1e-6))
    values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)
    return np.round(values.clip(0, 1) * 255).astype(np.uint8)


@cache
def _light(transfer: int) -> Float32[np.ndarray, "65536"]:
    """Light of each 16-bit value: scene light for HLG, and for PQ that of the display, white paper being 1."""
    values = np.arange(65536) / 65535
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    else:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = values ** (1 / m2)
        light = 1e4 / _WHITE * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    return light.astype(np.float32)
