"""The report in its order: what may be concluded, all problems, comparisons, each problem."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import gaba
from gaba.bench import statistics as stats
from gaba.bench.report import _figures, _words
from gaba.bench.report._compare import Comparison, Family
from gaba.bench.report._evidence import PRINCIPAL, Evidence
from gaba.bench.report._numbers import chance, figure, interval, listed, percent, percents
from gaba.bench.report._paper import COLOURS, png, svg
from gaba.bench.report._regret import MARGIN, Regret
from gaba.bench.report._runs import Block, group_of, rankable
from gaba.bench.report._views import Ranking, View, delta_m, interval_of, mean_of, time_ratio
from gaba.bench.store import EDITION
from gaba.record.page import Bullets, Drawing, Heading, Page, Part, Table, Text
from gaba.record.plots import Picture

TITLE = "Balancing losses: a benchmark"

METHOD = (
    "Quality is the mean over a problem's metrics of value/reference, or (1 − value)/(1 − "
    "reference) where higher is better; the reference is what a constant predictor gets. 0 is "
    "perfect, 1 is trivial. It is always of test data; validation data chose the setting, the "
    "parameters of each run and the optimizer.",
    "A run that diverged counts as the trivial predictor, or as the worst finished run of its "
    "block if that is worse. A run that failed with an error is left out and listed.",
    "Brackets are 95 % intervals. Of metrics, quality and Δm on one problem: bootstrap over seeds "
    "(BCa, 10,000 resamples). With five seeds they are too narrow and hold the mean in about 83 % "
    "of the cases. Of differences: Student's t.",
    "Differences are paired by seed, first − second, divided by the mean quality of both: below 0 "
    "the first is better. p values come from flipping the signs of the pairs, every problem "
    "counting the same; p over problems flips whole problems. Both are two-sided, corrected by "
    "Holm within each table.",
    "Ranks: the mean over problems of the rank of the mean quality; Friedman's test, its p by "
    "10,000 permutations within the problems; Nemenyi's critical difference at 5 % (Demšar 2006).",
    "Δm: the mean relative change of the metrics against single-task models, every task counting "
    "the same, positive where better (Maninis et al. 2019).",
    "Equivalence: two one-sided t tests within half the standard deviation over seeds.",
    "Time per step is in parts of uniform's on the same problem. Weights, their deviation: mean "
    "and standard deviation over the second half of a run. Saturated: the part of the steps in "
    "which a multiplier was at a bound. Imbalance: largest over smallest contribution in the "
    "median step.",
)


def page_of(evidence: Evidence) -> Page:
    """The whole report."""
    return Page(TITLE, tuple(_parts(evidence)), contents=True, colours=COLOURS)


def _parts(evidence: Evidence) -> Iterator[Part]:
    if evidence.edition < EDITION:
        yield Text(_words.EDITION_0)
    yield Text(_made(evidence), quiet=True)
    yield Heading("What may be concluded")
    yield Bullets(tuple(_words.conclusions(evidence)))
    yield Heading("What may not be concluded")
    yield Bullets(tuple(_words.cautions(evidence)))
    yield Heading("Over all problems")
    for view in evidence.views:
        yield from _overall(view)
    if evidence.asked:
        yield from _family(evidence.asked, "asked", detailed=True)
    for at, name in (
        (evidence.frozen, "frozen"),
        (evidence.against_uniform, "uniform"),
        (evidence.against_tuned, "tuned"),
    ):
        if at:
            yield from _family(at, name)
    yield from _regrets(evidence)
    yield from _variants(evidence)
    for block in evidence.blocks:
        yield from _block(block)
    yield Heading("What diverged, failed or is missing")
    yield Bullets(tuple(_words.troubles(evidence)))
    yield Heading("How it was worked out")
    yield Bullets(METHOD)


def _made(evidence: Evidence) -> str:
    n = sum(len(block.runs) for block in evidence.blocks)
    few, most = evidence.seeds
    seeds = f"{few} seeds" if few == most else f"{few} to {most} seeds"
    return (
        f"A report by gaba {gaba.__version__}: {n:,} trainings of {len(evidence.methods)} "
        f"methods on {len(evidence.problems)} problems with {listed(evidence.optimizers)}, {seeds} "
        f"each. Ran with {'; or '.join(evidence.versions)}, on {'; '.join(evidence.processors)}."
    )


def _overall(view: View) -> Iterator[Part]:
    ranking = view.ranking(rankable(view.methods))
    yield Heading(view.title[0].upper() + view.title[1:], 3)
    if view.chosen:
        yield Text("The optimizer of each method and problem was chosen on validation data.", True)
    yield _overall_table(view, ranking, rankable(view.methods))
    if not ranking.possible:
        yield Text("Ranks over problems need two of them at least.", quiet=True)
        return
    at = ranking.friedman
    missing = f" {listed(ranking.missing)} lack problems and have no rank." * bool(ranking.missing)
    yield Text(
        f"Friedman: χ² = {at.statistic:.2f} (p {chance(at.p)}; by permutation "
        f"{chance(at.permuted_p)}); {len(ranking.methods)} methods, {len(ranking.problems)} "
        f"problems.{missing}",
        quiet=True,
    )
    yield _diagram(ranking, "all methods", f"ranks-{_slug(view.title)}")
    principal = [m for m in PRINCIPAL if m in ranking.methods]
    if 2 < len(principal) < len(ranking.methods):
        few = view.ranking(principal)
        yield _diagram(few, "methods named beforehand", f"ranks-few-{_slug(view.title)}")


def _diagram(ranking: Ranking, which: str, name: str) -> Drawing:
    caption = (
        f"Mean ranks of {which} on {len(ranking.problems)} problems, {ranking.title}. A bar joins "
        f"methods that do not differ: their ranks lie within {ranking.critical:.2f}"
    )
    return _drawing(name, caption, partial(_figures.critical_difference, ranking))


def _family(at: Family, name: str, detailed: bool = False) -> Iterator[Part]:
    yield Heading(at.title)
    yield Text(at.question)
    optimizers = list(dict.fromkeys(c.optimizer for c in at.comparisons))
    order = sorted(at.comparisons, key=lambda c: (optimizers.index(c.optimizer), c.mean))
    yield _pooled_table(at.comparisons if detailed else order)
    label = "difference in quality, %: left of 0 the first is better (95 %, these problems)"
    for optimizer in optimizers:
        rows = [(c.title, c.interval, group_of(c.first)) for c in order if c.optimizer == optimizer]
        caption = f"{at.title}, with {optimizer}"
        draw = partial(_figures.intervals, rows, label)
        yield _drawing(f"against-{name}-{_slug(optimizer)}", caption, draw)
    if detailed:
        yield Heading("Problem by problem", 3)
        yield _pairs_table(at.comparisons)


def _regrets(evidence: Evidence) -> Iterator[Part]:
    if not evidence.regrets:
        return
    yield Heading("As good as a sweep, at the price of one run?")
    yield Text(
        "Regret is the difference to the best fixed weighting that the sweep found: chosen by "
        "validation, compared on test data at the final seeds. A method is as good as the sweep if "
        f"its whole interval over problems lies below +{100 * MARGIN:.0f} %, worse if above 0. "
        "The intervals are not corrected for how many methods there are. "
        "Learning rate and weight decay were tuned for each. “At uniform's setting” takes those "
        "chosen for uniform, on the validation data of the tuning seeds. There the sweep's best is "
        "the best of many, which flatters the sweep."
    )
    yield _regret_table(evidence.regrets)
    label = "regret, %: 0 is as good as the sweep's best (95 % interval, over problems)"
    for optimizer in evidence.optimizers:
        found = [r for r in evidence.regrets if r.optimizer == optimizer]
        rows = [(r.label, r.interval, group_of(r.method)) for r in found]
        if rows:
            draw = partial(_figures.intervals, rows, label)
            caption = f"Regret of each method, with {optimizer}"
            yield _drawing(f"regret-{_slug(optimizer)}", caption, draw)


def _variants(evidence: Evidence) -> Iterator[Part]:
    if len(evidence.own) < 2 or not evidence.several_tasks:
        return
    view = evidence.several_tasks[0]
    yield Heading("Our variants on problems of three or more tasks")
    yield Text(f"{listed(view.problems)}; {view.title}.", quiet=True)
    ranking = view.ranking(evidence.own)
    yield _overall_table(view, ranking, [m for m in rankable(view.methods) if m in evidence.own])
    if ranking.possible:
        yield _diagram(ranking, "our variants", "ranks-variants")


def _block(block: Block) -> Iterator[Part]:
    yield Heading(block.name)
    steps = sorted({run.row.steps for runs in block.final.values() for run in runs.values()})
    yield Text(
        f"{len(block.judge.tasks)} tasks, {' or '.join(f'{n:,}' for n in steps)} steps.", quiet=True
    )
    yield _quality_table(block)
    name = _slug(block.name)
    panels = _figures.panels_of(block)
    what = " and ".join(f"{y[0]} against {x[0]}" for x, y in panels)
    caption = f"{block.name}, test data: {what}; methods are means over seeds"
    yield _drawing(f"front-{name}", caption, partial(_figures.pareto, block))
    caption = f"{block.name}: quality against the time that it takes"
    yield _drawing(f"time-{name}", caption, partial(_figures.time_and_quality, block))
    yield Heading("Cost, and what the weights did", 3)
    yield _behaviour_table(block)


def _drawing(name: str, caption: str, draw: Callable[[], Picture]) -> Drawing:
    return Drawing(name, caption, lambda: svg(draw(), name, caption), lambda: png(draw()))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


# ---- tables -------------------------------------------------------------------------------------

WARMING = "still in its warm-up: equal weights by definition"
"""In place of a test of runs that are no longer than the warm-up of their method."""

MANY = 6
"""With more metrics than this a table shows only their mean quality."""


def _table(rows: Iterable[dict[str, str]], words: int = 1) -> Table:
    """The table of rows that have the same columns."""
    found = list(rows)
    return Table(tuple(found[0]), tuple(tuple(row.values()) for row in found), words)


def _overall_table(view: View, ranking: Ranking, methods: Sequence[str]) -> Table:
    """A line a method over all problems, the lowest mean rank first."""

    def row(method: str) -> dict[str, str]:
        blocks = [b for b in (view.block(p, method) for p in view.problems) if b]
        diverged = sum(run.diverged for b in blocks for run in b.final[method].values())
        return {
            "method": view.label(method),
            "group": group_of(method),
            "problems": str(len(blocks)),
            "mean rank": figure(ranking.ranks.get(method, math.nan), 3),
            "Δm ↑": percents(view.delta_m(method)),
            "time per step": figure(view.time_ratio(method), 3),
            "diverged runs": str(diverged),
        }

    order = sorted(methods, key=lambda m: (ranking.ranks.get(m, math.inf), m))
    return _table(map(row, order), words=2)


def _quality_table(block: Block) -> Table:
    """A line a method: its metrics on test data with bootstrap intervals, quality, rank and Δm."""
    metrics = block.judge.metrics if len(block.judge.metrics) <= MANY else ()
    shown = _unjudged(block)
    order = sorted(block.methods, key=block.quality)
    ranked = rankable(order)
    scores = [[block.quality(method) for method in ranked]]
    ranks = dict(zip(ranked, stats.mean_ranks(scores) if len(ranked) > 1 else [], strict=False))

    def row(method: str) -> dict[str, str]:
        runs, whole = list(block.final[method].values()), method in order
        own = [m for m in metrics if whole or m.task == method.partition(":")[2]]
        judged = {m: [run.test(m.name) for run in runs] for m in own}
        diverged = sum(run.diverged for run in runs)
        qualities = list(block.qualities(method).values())
        return {
            "method": block.label(method),
            **{
                f"{m.name} {'↑' if m.higher_is_better else '↓'}": (
                    interval(interval_of(judged[m])) if m in judged else "–"
                )
                for m in metrics
            },
            **{name: figure(mean_of([run.test(name) for run in runs])) for name in shown},
            "quality ↓": interval(interval_of(qualities)) if whole else "–",
            "rank": figure(ranks.get(method, math.nan)),
            "Δm ↑": percents(interval_of(delta_m(block, method))) if whole else "–",
            "seeds": f"{len(runs)} ({diverged} diverged)" if diverged else f"{len(runs)}",
            "rate, decay": "{:.2g}, {:.2g}".format(*runs[0].rates),
        }

    alone = sorted(m for m in block.final if m not in order) if metrics else []
    return _table(map(row, [*order, *alone]))


def _behaviour_table(block: Block) -> Table:
    """A line a method: what it costs, and what its weights did."""
    few = len(block.judge.tasks) <= 4
    weights = f"mean weights ({' / '.join(block.judge.tasks)})" if few else "mean weights, range"

    def row(method: str) -> dict[str, str]:
        means, spreads = (_weights(block, method, name) for name in ("mean", "std"))
        return {
            "method": block.label(method),
            "time per step": figure(time_ratio(block, method), 3),
            "ms per step": figure(1e3 * block.median(method, "seconds_per_step"), 3),
            "memory, MiB": figure(block.median(method, "peak_memory_bytes") / 2**20, 3),
            weights: " / ".join(figure(w, 3) for w in means) if few else _range(means),
            "their deviation": (
                " / ".join(figure(w, 2) for w in spreads) if few else _range(spreads)
            ),
            "saturated": _share(block.median(method, "saturated")),
            "imbalance": figure(block.median(method, "imbalance_median"), 3),
            "trials to tune": str(len(block.trials(method))),
        }

    return _table(map(row, sorted(block.methods, key=block.quality)))


def _pooled_table(comparisons: Sequence[Comparison]) -> Table:
    """A line a comparison, over all its problems."""
    rows = (
        {
            "comparison": c.title,
            "optimizer": c.optimizer,
            "problems (better : worse)": f"{len(c.pairs)} ({c.wins[0]} : {c.wins[1]})",
            "pairs": str(sum(pair.n for pair in c.pairs)),
            "difference, these problems": percents(c.interval),
            "difference, over problems": percents(c.across),
            "p": chance(c.p),
            "p, corrected": chance(c.holm),
            "p over problems": chance(c.p_problems),
        }
        for c in comparisons
    )
    return _table(rows, words=2)


def _pairs_table(comparisons: Sequence[Comparison]) -> Table:
    """A line a comparison and problem."""
    rows = (
        {
            "comparison": c.title,
            "problem": pair.block.name,
            "seeds": str(pair.n),
            "quality of the first": figure(float(pair.first.mean())),
            "of the second": figure(float(pair.second.mean())),
            "difference, t interval": percents(pair.interval),
            "p, sign flips": chance(pair.p),
            "p, Wilcoxon": chance(pair.wilcoxon),
            "p, corrected": chance(pair.holm),
            "p of equivalence": WARMING if c.only_warms_up(pair) else chance(pair.equivalence),
        }
        for c in comparisons
        for pair in c.pairs
    )
    return _table(rows, words=2)


def _regret_table(regrets: Sequence[Regret]) -> Table:
    """A line a method: how far behind the sweep, and for what part of its price."""
    rows = (
        {
            "method": r.label,
            "optimizer": r.optimizer,
            "problems": str(len(r.comparison.pairs)),
            "regret": percents(r.interval),
            "worst problem": percent(max(float(p.relative.mean()) for p in r.comparison.pairs)),
            "at uniform's setting": percent(r.untuned),
            "sweep : one run": figure(r.sweep_cost, 3),
            "sweep : its tuning": figure(r.tuning_cost, 3),
            "as good as the sweep?": r.verdict,
        }
        for r in regrets
    )
    return _table(rows, words=2)


def _unjudged(block: Block) -> list[str]:
    """Figures of the test data that judge nothing and are shown."""
    judged = {m.name for m in block.judge.metrics}
    known = next((r.row.result.get("test") or {} for r in block.runs if r.quality < math.inf), {})
    return [name for name in known if name not in judged][:4]


def _weights(block: Block, method: str, what: str) -> list[float]:
    told = [r.row.result.get(f"weights_{what}") or {} for r in block.final[method].values()]
    means = (mean_of([float(w.get(task, math.nan)) for w in told]) for task in block.judge.tasks)
    return [0.0 if abs(mean) < 1e-12 else mean for mean in means]  # rounding is no movement


def _range(values: Sequence[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return f"{figure(min(known), 2)} to {figure(max(known), 2)}" if known else "–"


def _share(part: float) -> str:
    return "–" if math.isnan(part) else f"{100 * part:.0f} %"
