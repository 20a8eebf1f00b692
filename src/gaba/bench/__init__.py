"""A benchmark of loss balancing: problems, methods, seeds, and what may be concluded from them.

>>> from gaba import bench
>>> problem = bench.load("synthetic-40")
>>> len(problem.tasks), problem.metrics[0].name
(40, 'excess_t00')
"""

from typing import TYPE_CHECKING

from gaba.bench.problems import CARDS, PROBLEMS
from gaba.late import late

if TYPE_CHECKING:
    from gaba.bench.config import Config
    from gaba.bench.problem import Metric, Problem, Session, Split, load
    from gaba.bench.store import Row, Store
    from gaba.bench.sweep import Summary, run, status
    from gaba.bench.trial import Trial, run_trial

__all__ = [
    "CARDS",
    "PROBLEMS",
    "Config",
    "Metric",
    "Problem",
    "Row",
    "Session",
    "Split",
    "Store",
    "Summary",
    "Trial",
    "load",
    "run",
    "run_trial",
    "status",
]

__getattr__ = late(
    __name__,
    {
        "Config": "gaba.bench.config",
        **dict.fromkeys(("Metric", "Problem", "Session", "Split", "load"), "gaba.bench.problem"),
        **dict.fromkeys(("Row", "Store"), "gaba.bench.store"),
        **dict.fromkeys(("Summary", "run", "status"), "gaba.bench.sweep"),
        **dict.fromkeys(("Trial", "run_trial"), "gaba.bench.trial"),
    },
)
