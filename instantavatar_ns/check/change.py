"""A single change to a recording, which undoes one mistake that people make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.check.recording import Recording

# Units that lengths are found in, by the factor that makes them metres.
_LENGTHS = {0.001: "millimetres", 0.01: "centimetres", 100.0: "hundreds of metres", 1000.0: "kilometres"}
_SHORTEST, _LONGEST = 0.01, 1000.0


@dataclass(frozen=True)
class Change:
    """One change to a recording.

    Attributes:
        kind: Short name of the mistake.
        words: What is changed, to follow "with" in a sentence.
        advice: What the user has to do to the data, one sentence without a full stop.
        apply: Makes the change.
        freedom: Intersection over union that a change gains on any data because it is fitted to the masks, about.
        certain: Whether data that the change makes clearly better cannot be right as it is.
        certain_gain: Intersection over union that it has to gain for that.
    """

    kind: str
    words: str
    advice: str
    apply: Callable[[Recording], Recording]
    freedom: float = 0.0
    certain: bool = True
    certain_gain: float = 0.10


def likely_units(lengths: Float[Tensor, "..."]) -> dict[float, str]:
    """Units that lengths may be in, by the factor that makes them metres.

    Small lengths are no millimetres: people and cameras move by more than a hundredth of a metre.
    """
    longest = float(lengths.abs().max())
    return {factor: unit for factor, unit in _LENGTHS.items() if _SHORTEST <= factor * longest <= _LONGEST}
