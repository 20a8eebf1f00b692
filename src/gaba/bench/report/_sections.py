"""The report in its order: what may be concluded, all problems, comparisons, each problem."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import metadata

from gaba.bench.report import _figures, _tables, _words
from gaba.bench.report._compare import Family
from gaba.bench.report._document import (
    Bullets,
    Drawing,
    Heading,
    Page,
    Part,
    Text,
    chance,
    listed,
)
from gaba.bench.report._evidence import PRINCIPAL, Evidence
from gaba.bench.report._regret import MARGIN
from gaba.bench.report._runs import Block, group_of
from gaba.bench.report._summary import Ranking, View, rankable

__all__ = ["page_of"]

TITLE = "Balancing losses: a benchmark"

METHOD = (
    "Quality is the mean over a problem's metrics of value/reference, or (1 − value)/(1 − "
    "reference) where higher is better; the reference is what a constant predictor gets. 0 is "
    "perfect, 1 is trivial. It is always of test data; validation data chose the setting, the "
    "parameters of each run and the optimizer.",
    "A run that diverged counts as the trivial predictor, or as the worst finished run of its "
    "block if that is worse. A run that failed with an error is left out and listed.",
    "Brackets are 95 % intervals. Of metrics, quality and Δm on one problem: bootstrap over seeds "
    "(BCa, 10,000 resamples); with five seeds they are too narrow and hold the mean in about 83 % "
    "of the cases. Of differences: Student's t.",
    "Differences are paired by seed, first − second, divided by the mean quality of both: below 0 "
    "the first is better. p values come from flipping the signs of the pairs, every problem "
    "counting the same; p over problems flips whole problems. Both two-sided, corrected by Holm "
    "within each table.",
    "Ranks: the mean over problems of the rank of the mean quality; Friedman's test, its p by "
    "10,000 permutations within the problems; Nemenyi's critical difference at 5 % (Demšar 2006).",
    "Δm: the mean relative change of the metrics against single-task models, every task counting "
    "the same, positive where better (Maninis et al. 2019).",
    "Equivalence: two one-sided t tests within half the standard deviation over seeds.",
    "Time per step is in parts of uniform's on the same problem. Weights, their deviation: mean "
    "and standard deviation over the second half of a run. Saturated: the share of steps in which "
    "a weight sat on its floor. Imbalance: max over min contribution in the median step.",
)


def page_of(evidence: Evidence) -> Page:
    return Page(TITLE, tuple(_parts(evidence)))


def _parts(evidence: Evidence) -> Iterator[Part]:
    yield Text(_made(evidence), quiet=True)
    yield Heading("What may be concluded")
    yield Bullets(tuple(_words.conclusions(evidence)))
    yield Heading("What may not be concluded")
    yield Bullets(tuple(_words.cautions(evidence)))
    yield Heading("Over all problems")
    for view in evidence.views:
        yield from _overall(view)
    if evidence.asked:
        yield from _family(evidence.asked, "gaba", detailed=True)
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
        f"A report by gaba {metadata.version('gaba')}: {n:,} trainings of {len(evidence.methods)} "
        f"methods on {len(evidence.problems)} problems with {listed(evidence.optimizers)}, {seeds} "
        f"each. Ran with {'; or '.join(evidence.versions)}, on {'; '.join(evidence.processors)}."
    )


def _overall(view: View) -> Iterator[Part]:
    ranking = view.ranking(rankable(view.methods))
    yield Heading(view.title[0].upper() + view.title[1:], 3)
    if view.chosen:
        yield Text("The optimizer of each method and problem was chosen on validation data.", True)
    yield _tables.overall(view, ranking)
    if not ranking.possible:
        yield Text("Ranks over problems need two of them at least.", quiet=True)
        return
    at = ranking.friedman
    yield Text(
        f"Friedman: χ² = {at.statistic:.2f} (p {chance(at.p)}; by permutation "
        f"{chance(at.permuted_p)}); {len(ranking.methods)} methods, {len(ranking.problems)} "
        "problems."
        + (f" Without {listed(ranking.missing)}, which lack problems." if ranking.missing else ""),
        quiet=True,
    )
    yield _diagram(ranking, "all methods", f"ranks-{_slug(view.title)}")
    principal = [m for m in PRINCIPAL if m in ranking.methods]
    if 2 < len(principal) < len(ranking.methods):
        few = view.ranking(principal)
        yield _diagram(few, "methods named beforehand", f"ranks-few-{_slug(view.title)}")


def _diagram(ranking: Ranking, which: str, name: str) -> Drawing:
    caption = (
        f"Mean ranks of {which} on {len(ranking.problems)} problems, {ranking.title}; a bar joins "
        "methods that cannot be told apart"
    )
    return Drawing(name, caption, partial(_figures.critical_difference, ranking))


def _family(at: Family, name: str, detailed: bool = False) -> Iterator[Part]:
    yield Heading(at.title)
    yield Text(at.question)
    optimizers = list(dict.fromkeys(c.optimizer for c in at.comparisons))
    order = sorted(at.comparisons, key=lambda c: (optimizers.index(c.optimizer), c.mean))
    yield _tables.pooled(at.comparisons if detailed else order)
    label = "difference in quality, %: left of 0 the first is better (95 %, these problems)"
    for optimizer in optimizers:
        rows = [(c.title, c.interval, group_of(c.first)) for c in order if c.optimizer == optimizer]
        caption = f"{at.title}, with {optimizer}"
        draw = partial(_figures.intervals, rows, label)
        yield Drawing(f"against-{name}-{_slug(optimizer)}", caption, draw)
    if detailed:
        yield Heading("Problem by problem", 3)
        yield _tables.pairs(at.comparisons)


def _regrets(evidence: Evidence) -> Iterator[Part]:
    if not evidence.regrets:
        return
    yield Heading("As good as a sweep, at the price of one run?")
    yield Text(
        "Regret is the difference to the best fixed weighting that the sweep found: chosen by "
        "validation, compared on test data at the final seeds. A method is as good as the sweep if "
        f"its whole interval over problems lies below +{100 * MARGIN:.0f} %, worse if above 0; "
        "the intervals are not corrected for how many methods there are. "
        "Learning rate and weight decay were tuned for each; “at uniform's setting” takes those "
        "chosen for uniform, on the validation data of the tuning seeds, where the sweep's best is "
        "the best of many: that flatters the sweep."
    )
    yield _tables.regret(evidence.regrets)
    label = "regret, %: 0 is as good as the sweep's best (95 % interval, over problems)"
    for optimizer in evidence.optimizers:
        found = [r for r in evidence.regrets if r.optimizer == optimizer]
        rows = [(r.method, r.interval, group_of(r.method)) for r in found]
        if rows:
            draw = partial(_figures.intervals, rows, label)
            caption = f"Regret of each method, with {optimizer}"
            yield Drawing(f"regret-{_slug(optimizer)}", caption, draw)


def _variants(evidence: Evidence) -> Iterator[Part]:
    if len(evidence.own) < 2 or not evidence.several_tasks:
        return
    view = evidence.several_tasks[0]
    yield Heading("Our variants on problems of three or more tasks")
    yield Text(f"{listed(view.problems)}; {view.title}.", quiet=True)
    ranking = view.ranking(evidence.own)
    table = _tables.overall(view, ranking)
    rows = tuple(row for row in table.rows if row[0] in evidence.own)
    yield replace(table, rows=rows)
    if ranking.possible:
        yield _diagram(ranking, "our variants", "ranks-variants")


def _block(block: Block) -> Iterator[Part]:
    yield Heading(block.name)
    steps = sorted({run.row.steps for runs in block.final.values() for run in runs.values()})
    yield Text(
        f"{len(block.judge.tasks)} tasks, {' or '.join(f'{n:,}' for n in steps)} steps.", quiet=True
    )
    yield _tables.quality(block)
    name = _slug(block.name)
    panels = _figures.panels_of(block)
    what = " and ".join(f"{y[0]} against {x[0]}" for x, y in panels)
    caption = f"{block.name}, test data: {what}; methods are means over seeds"
    yield Drawing(f"front-{name}", caption, partial(_figures.pareto, block))
    caption = f"{block.name}: quality against the time that it takes"
    yield Drawing(f"time-{name}", caption, partial(_figures.time_and_quality, block))
    yield Heading("Cost, and what the weights did", 3)
    yield _tables.behaviour(block)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
