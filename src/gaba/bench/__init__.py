"""A benchmark of loss balancing: problems, methods, seeds, and what may be concluded from them.

>>> from gaba import bench
>>> problem = bench.load("synthetic-40")
>>> len(problem.tasks), problem.metrics[0].name
(40, 'excess_t00')
"""

from gaba.bench.config import Config
from gaba.bench.problem import PROBLEMS, Metric, Problem, Session, Split, load
from gaba.bench.store import Row, Store
from gaba.bench.sweep import Summary, run, status
from gaba.bench.trial import Trial, run_trial

__all__ = [
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
