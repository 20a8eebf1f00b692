"""What the rules by inverse losses share."""

from __future__ import annotations

import math
from typing import Any

from gaba.arrays import namespace
from gaba.rules._simplex import checked


def sound(measured: Any, rule: str) -> Any:
    """The losses (..., K), NaN throughout a vector in which one is not above 0."""
    losses = checked(measured, rule, "losses")
    return namespace(losses).where((losses > 0).all(-1)[..., None], losses, math.nan)


def inverse(measured: Any, rule: str) -> Any:
    """Weights (..., K) on the simplex in proportion to 1/L_k; 1e-23 and 1e20 may meet."""
    losses = sound(measured, rule)
    xp = namespace(losses)
    raw = xp.amin(losses, -1, keepdims=True) / losses
    return raw / xp.sum(raw, -1, keepdims=True)
