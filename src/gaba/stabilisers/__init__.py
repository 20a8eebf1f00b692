"""Stabilisers: what is believed about the norms, and what the weights may do.

Each is a frozen dataclass of settings with an explicit state:
``value, state = stabiliser.update(value, state)``. Nothing is changed in place, nothing waits for
the device, and no graph is kept.
"""

from __future__ import annotations

from collections.abc import Callable

from gaba.stabilisers._base import AnyStabiliser, Stabiliser
from gaba.stabilisers._chain import Chain
from gaba.stabilisers._clip import Clip
from gaba.stabilisers._ema import EMA
from gaba.stabilisers._floor import Floor
from gaba.stabilisers._freeze import Freeze
from gaba.stabilisers._log_ema import LogEMA
from gaba.stabilisers._warmup import Warmup

__all__ = [
    "EMA",
    "AnyStabiliser",
    "Chain",
    "Clip",
    "Floor",
    "Freeze",
    "LogEMA",
    "Stabiliser",
    "Warmup",
    "by_name",
]

_BY_NAME: dict[str, Callable[[], AnyStabiliser]] = {
    "ema": EMA,
    "log-ema": LogEMA,
    "floor": Floor,
    "warmup": Warmup,
    "clip": Clip,
    "freeze": Freeze,
}


def by_name(name: str) -> AnyStabiliser:
    """The stabiliser of that name, with its default settings.

    Args:
        name: "ema", "log-ema", "floor", "warmup", "clip" or "freeze".

    Raises:
        ValueError: If there is none of that name.

    >>> by_name("log-ema")
    LogEMA(decay=0.99)
    """
    if name not in _BY_NAME:
        raise ValueError(
            f"stabiliser must be one of {', '.join(map(repr, _BY_NAME))}, found {name!r}: give a "
            "name of these or a Stabiliser object"
        )
    return _BY_NAME[name]()
