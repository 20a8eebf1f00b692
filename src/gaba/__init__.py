"""Balance several losses by how hard each pulls on the shared parameters.

check → measure → decide → combine → record
"""

from gaba import measurement, methods, ranks, rules, stabilisers
from gaba.balancer import Balancer
from gaba.measures import contributions, imbalance, shares
from gaba.methods import Method
from gaba.record import History, RunRecord, Step, diagnose

__version__ = "0.2.0"

__all__ = [
    "Balancer",
    "History",
    "Method",
    "RunRecord",
    "Step",
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
