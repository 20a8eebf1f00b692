"""Statistics of paired comparisons over seeds and problems: intervals, tests, ranks, Δm.

Everything takes plain arrays and knows nothing of the benchmark's store. Lower is better wherever
a direction matters. What is random (bootstrap, flips of more than 16 pairs) is seeded.
"""

from __future__ import annotations

from gaba.bench.statistics._intervals import (
    Equivalence,
    Interval,
    bootstrap_interval,
    equivalence,
    stratified_interval,
    t_interval,
)
from gaba.bench.statistics._ranks import (
    Friedman,
    cliques,
    friedman,
    mean_ranks,
    nemenyi_critical_difference,
)
from gaba.bench.statistics._relative import pareto_front, relative_change
from gaba.bench.statistics._tests import (
    blocked_sign_flip,
    holm,
    sign_flip,
    smallest_p,
    wilcoxon,
)

__all__ = [
    "Equivalence",
    "Friedman",
    "Interval",
    "blocked_sign_flip",
    "bootstrap_interval",
    "cliques",
    "equivalence",
    "friedman",
    "holm",
    "mean_ranks",
    "nemenyi_critical_difference",
    "pareto_front",
    "relative_change",
    "sign_flip",
    "smallest_p",
    "stratified_interval",
    "t_interval",
    "wilcoxon",
]
