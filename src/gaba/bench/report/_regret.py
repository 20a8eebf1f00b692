"""How far methods that need no search stay behind the best fixed weighting of a sweep."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np

from gaba.bench import statistics as stats
from gaba.bench.report._compare import Comparison, compare
from gaba.bench.report._runs import SWEEP, TUNED, Block, Run
from gaba.bench.report._views import mean_of

MARGIN = 0.05
"""A method is called as good as the sweep if it is surely not worse by more than this part."""

Verdict = Literal["as good", "worse", "open"]


@final
@dataclass(frozen=True)
class Regret:
    """A method against ``fixed-sweep``: above 0 it is worse.

    ``sweep_cost`` is the sweep's seconds in parts of one run of the method; ``tuning_cost`` in
    parts of the method's whole tuning; both the median over problems. ``untuned`` is the regret at
    the learning rate and weight decay chosen for uniform, on validation data.
    """

    comparison: Comparison
    sweep_cost: float
    tuning_cost: float
    untuned: float

    @property
    def method(self) -> str:
        return self.comparison.first

    @property
    def label(self) -> str:
        return self.comparison.first_label

    @property
    def optimizer(self) -> str:
        return self.comparison.optimizer

    @property
    def interval(self) -> stats.Interval:
        """Over the problems; with one problem, over its seeds."""
        several = len(self.comparison.pairs) > 1
        return self.comparison.across if several else self.comparison.interval

    @property
    def verdict(self) -> Verdict:
        if self.interval.high <= MARGIN:
            return "as good"
        return "worse" if self.interval.low > 0 else "open"


def regrets(blocks: Sequence[Block]) -> list[Regret]:
    """Of every method that searches for no weights, by optimizer, the least regret first."""
    found: list[Regret] = []
    for optimizer in dict.fromkeys(block.optimizer for block in blocks):
        here = [block for block in blocks if block.optimizer == optimizer and SWEEP in block.final]
        names = dict.fromkeys(m for block in here for m in block.methods if searches_nothing(m))
        found += sorted(
            (_regret(name, optimizer, here) for name in names), key=lambda r: r.comparison.mean
        )
    return found


def searches_nothing(method: str) -> bool:
    return method not in (SWEEP, TUNED) and not method.startswith("frozen:")


def _regret(method: str, optimizer: str, blocks: Sequence[Block]) -> Regret:
    pairs = compare(blocks, method, SWEEP)
    with_it = [pair.block for pair in pairs]
    return Regret(
        Comparison(method, SWEEP, optimizer, tuple(pairs)),
        _median([spent(b, SWEEP) / b.median(method, "seconds") for b in with_it]),
        _median([spent(b, SWEEP) / (spent(b, method) or math.nan) for b in with_it]),
        mean_of([_untuned(block, method) for block in with_it]),
    )


def spent(block: Block, method: str) -> float:
    """The seconds of all trials among which the setting of ``method`` was chosen."""
    seconds = [run.figure("seconds") for run in block.trials(method)]
    return float(np.nansum(seconds)) if seconds else 0.0


def _untuned(block: Block, method: str) -> float:
    """The regret on validation data at uniform's setting; NaN if that was not tried."""
    uniform = next(iter(block.final.get("uniform", {}).values()), None)
    tried = {} if uniform is None else _by_setting(block.trials(method))
    mine = tried.get((None, uniform.rates) if uniform else None, math.nan)
    best = min(_by_setting(block.trials(SWEEP)).values(), default=math.nan)
    if not math.isfinite(mine + best) or mine + best == 0:
        return math.nan
    return 2 * (mine - best) / (mine + best)


def _by_setting(runs: Sequence[Run]) -> dict[Any, float]:
    """The mean validation quality of each setting over the tuning seeds."""
    found: dict[Any, list[float]] = defaultdict(list)
    for run in runs:
        found[run.multipliers, run.rates].append(run.chosen_by)
    return {setting: float(np.mean(values)) for setting, values in found.items()}


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.median(known)) if known else math.nan
