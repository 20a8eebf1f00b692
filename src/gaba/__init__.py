"""Balance several losses by how hard each pulls on the shared parameters.

check → measure → decide → combine → record
"""

from typing import TYPE_CHECKING

from gaba.late import late

if TYPE_CHECKING:
    from gaba import measurement, methods, ranks, rules, stabilisers
    from gaba.balancer import Balancer, Observer
    from gaba.measures import contributions, imbalance, shares
    from gaba.methods.method import Method
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
    "tune",  # pyright: ignore[reportUnsupportedDunderAll]
]

__getattr__ = late(
    __name__,
    {
        **dict.fromkeys(("Balancer", "Observer"), "gaba.balancer"),
        **dict.fromkeys(("contributions", "imbalance", "shares"), "gaba.measures"),
        **dict.fromkeys(("History", "RunRecord", "Step", "diagnose"), "gaba.record"),
        "Method": "gaba.methods.method",
        "compare": "gaba.bench.compare",
        "tune": "gaba.bench.tuning",
    },
    modules=("measurement", "methods", "ranks", "rules", "stabilisers"),
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
