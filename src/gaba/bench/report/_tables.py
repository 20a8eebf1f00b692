"""The tables of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gaba.bench import statistics as stats
from gaba.bench.report._compare import Comparison
from gaba.bench.report._document import Table, chance, figure, interval, percent, percents
from gaba.bench.report._regret import Regret
from gaba.bench.report._runs import Block, group_of
from gaba.bench.report._summary import Ranking, View, delta_m, interval_of, rankable, time_ratio

__all__ = ["behaviour", "overall", "pairs", "pooled", "quality", "regret"]

MANY = 6
"""With more metrics than this a table shows their mean quality alone."""


def overall(view: View, ranking: Ranking) -> Table:
    """A line a method over all problems, the lowest mean rank first."""
    rows: list[tuple[str, ...]] = []
    methods = rankable(view.methods)
    for method in sorted(methods, key=lambda m: (ranking.ranks.get(m, math.inf), m)):
        blocks = [b for b in (view.block(p, method) for p in view.problems) if b]
        diverged = sum(run.diverged for b in blocks for run in b.final[method].values())
        rows.append(
            (
                method,
                group_of(method),
                str(len(blocks)),
                figure(ranking.ranks.get(method, math.nan), 3),
                percents(view.delta_m(method)),
                figure(view.time_ratio(method), 3),
                str(diverged),
            )
        )
    head = ("method", "group", "problems", "mean rank", "Δm ↑", "time per step", "diverged runs")
    return Table(head, tuple(rows), words=2)


def quality(block: Block) -> Table:
    """A line a method: its metrics on test data with bootstrap intervals, quality, rank and Δm."""
    metrics = block.judge.metrics if len(block.judge.metrics) <= MANY else ()
    shown = _unjudged(block)
    order = sorted(block.methods, key=block.quality)
    ranked = rankable(order)
    ranks: dict[str, float] = {}
    if len(ranked) > 1:
        ranks = dict(
            zip(ranked, stats.mean_ranks([[block.quality(m) for m in ranked]]), strict=True)
        )
    rows: list[tuple[str, ...]] = []
    alone = sorted(m for m in block.final if m not in order) if metrics else []
    for method in (*order, *alone):
        runs = list(block.final[method].values())
        whole = method in order
        own = [m for m in metrics if whole or m.task == method.partition(":")[2]]
        rates = f"{runs[0].rates[0]:.2g}, {runs[0].rates[1]:.2g}"
        rows.append(
            (
                method,
                *(
                    interval(interval_of([r.test(m.name) for r in runs])) if m in own else "–"
                    for m in metrics
                ),
                *(figure(interval_of([r.test(name) for r in runs]).estimate) for name in shown),
                interval(interval_of(list(block.qualities(method).values()))) if whole else "–",
                figure(ranks.get(method, math.nan)),
                percents(interval_of(delta_m(block, method))) if whole else "–",
                f"{len(runs)}"
                + (f" ({n} diverged)" if (n := sum(run.diverged for run in runs)) else ""),
                rates,
            )
        )
    names = [f"{m.name} {'↑' if m.higher_is_better else '↓'}" for m in metrics]
    head = ("method", *names, *shown, "quality ↓", "rank", "Δm ↑", "seeds", "rate, decay")
    return Table(head, tuple(rows))


def behaviour(block: Block) -> Table:
    """A line a method: what it costs, and what its weights did."""
    few = len(block.judge.tasks) <= 4
    rows: list[tuple[str, ...]] = []
    for method in sorted(block.methods, key=block.quality):
        memory = block.median(method, "peak_memory_bytes")
        trials = block.trials(method)
        means, spreads = (_weights(block, method, name) for name in ("mean", "std"))
        rows.append(
            (
                method,
                figure(time_ratio(block, method), 3),
                figure(1e3 * block.median(method, "seconds_per_step"), 3),
                figure(memory / 2**20, 3),
                " / ".join(figure(w, 3) for w in means) if few else _range(means),
                " / ".join(figure(w, 2) for w in spreads) if few else _range(spreads),
                _share(block.median(method, "saturated")),
                figure(block.median(method, "imbalance_median"), 3),
                str(len(trials)),
            )
        )
    weights = f"mean weights ({' / '.join(block.judge.tasks)})" if few else "mean weights, range"
    head = (
        *("method", "time per step", "ms per step", "memory, MiB", weights, "their deviation"),
        *("saturated", "imbalance", "trials to tune"),
    )
    return Table(head, tuple(rows))


def pooled(comparisons: Sequence[Comparison]) -> Table:
    """A line a comparison, over all its problems."""
    rows = [
        (
            c.title,
            c.optimizer,
            f"{len(c.pairs)} ({c.wins[0]} : {c.wins[1]})",
            str(sum(pair.n for pair in c.pairs)),
            percents(c.interval),
            percents(c.across),
            chance(c.p),
            chance(c.holm),
            chance(c.p_problems),
        )
        for c in comparisons
    ]
    head = (
        *("comparison", "optimizer", "problems (better : worse)", "pairs"),
        *("difference, these problems", "difference, over problems"),
        *("p", "p, corrected", "p over problems"),
    )
    return Table(head, tuple(rows), words=2)


def pairs(comparisons: Sequence[Comparison]) -> Table:
    """A line a comparison and problem."""
    rows = [
        (
            c.title,
            pair.block.name,
            str(pair.n),
            figure(float(pair.first.mean())),
            figure(float(pair.second.mean())),
            percents(pair.interval),
            chance(pair.p),
            chance(pair.wilcoxon),
            chance(pair.holm),
            chance(pair.equivalence.p if pair.equivalence else math.nan),
        )
        for c in comparisons
        for pair in c.pairs
    ]
    head = (
        *("comparison", "problem", "seeds", "quality of the first", "of the second"),
        *("difference, t interval", "p, sign flips", "p, Wilcoxon", "p, corrected"),
        "p of equivalence",
    )
    return Table(head, tuple(rows), words=2)


def regret(regrets: Sequence[Regret]) -> Table:
    """A line a method: how far behind the sweep, and for what part of its price."""
    rows = [
        (
            r.method,
            r.optimizer,
            str(len(r.comparison.pairs)),
            percents(r.interval),
            percent(max(float(pair.relative.mean()) for pair in r.comparison.pairs)),
            percent(r.untuned),
            figure(r.sweep_cost, 3),
            figure(r.tuning_cost, 3),
            r.verdict,
        )
        for r in regrets
    ]
    head = (
        *("method", "optimizer", "problems", "regret", "worst problem", "at uniform's setting"),
        *("sweep : one run", "sweep : its tuning", "as good as the sweep?"),
    )
    return Table(head, tuple(rows), words=2)


def _unjudged(block: Block) -> list[str]:
    """Figures of the test data that judge nothing and are shown."""
    judged = {m.name for m in block.judge.metrics}
    known = next((r.row.result.get("test") or {} for r in block.runs if r.quality < math.inf), {})
    return [name for name in known if name not in judged][:4]


def _weights(block: Block, method: str, what: str) -> list[float]:
    told = [r.row.result.get(f"weights_{what}") or {} for r in block.final[method].values()]
    means = (
        interval_of([float(w.get(task, math.nan)) for w in told]).estimate
        for task in block.judge.tasks
    )
    return [0.0 if abs(mean) < 1e-12 else mean for mean in means]  # rounding is no movement


def _range(values: Sequence[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return f"{figure(min(known), 2)} to {figure(max(known), 2)}" if known else "–"


def _share(part: float) -> str:
    return "–" if math.isnan(part) else f"{100 * part:.0f} %"
