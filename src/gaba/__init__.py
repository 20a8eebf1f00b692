"""Balance several losses by the pull of each on the shared parameters.

losses → measure → stabilise → weigh → stabilise → combine → record
"""

from gaba import distributed, measurement, stabilisers, weighting
from gaba.balancer import Balancer
from gaba.history import History
from gaba.measures import contributions, imbalance, shares
from gaba.record import RunRecord, Step

__all__ = [
    "Balancer",
    "History",
    "RunRecord",
    "Step",
    "contributions",
    "distributed",
    "imbalance",
    "measurement",
    "shares",
    "stabilisers",
    "weighting",
]
