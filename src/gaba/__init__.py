"""Balance several losses by how hard each pulls on the shared parameters.

check → measure → decide → combine → record
"""

from importlib import import_module
from typing import Any

from gaba import measurement, methods, ranks, rules, stabilisers
from gaba.balancer import Balancer, Observer
from gaba.measures import contributions, imbalance, shares
from gaba.methods import Method
from gaba.record import History, RunRecord, Step, diagnose

__version__ = "0.2.0"

__all__ = [
    "Balancer",
    "History",
    "Method",
    "Observer",
    "RunRecord",
    "Step",
    "compare",  # pyright: ignore[reportUnsupportedDunderAll]
    "contributions",
    "diagnose",
    "imbalance",
    "measurement",
    "methods",
    "ranks",
    "rules",
    "shares",
    "stabilisers",
]

_LATE = {"compare": "gaba.bench.compare"}
"""Names of applications that stand here as well; their module is imported when asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'gaba' has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
