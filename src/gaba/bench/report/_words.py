"""What may and what may not be concluded, in sentences that the numbers decide."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gaba.bench.report._compare import Comparison, Family
from gaba.bench.report._evidence import Evidence
from gaba.bench.report._numbers import chance, count, listed, percent, percents
from gaba.bench.report._regret import MARGIN, Regret
from gaba.bench.report._runs import SWEEP, TUNED, rankable
from gaba.bench.report._views import Ranking

ALPHA = 0.05
MOST = 6
"""So many names a sentence; the tables have all."""

EDITION_0 = (
    "Measured with gaba 0.1.0, in the names of today: paper was called gaba then, inverse was the "
    "default, and the method that is now called gaba did not exist. The losses were scaled "
    "otherwise: the update pulled as hard as the mean of the losses, now it pulls as hard as their "
    "sum. With SGD a learning rate of 0.1.0 corresponds to one K times smaller today."
)


def conclusions(evidence: Evidence) -> list[str]:
    """The findings, each with the number that it rests on."""
    said = [_differ(view.ranking(rankable(view.methods))) for view in evidence.views[:1]]
    for at, baseline in (
        (evidence.against_uniform, "equal weights"),
        (evidence.against_tuned, "tuned fixed weights"),
    ):
        said += _against(at, baseline)
    said += [verdict(c) for c in evidence.asked.comparisons] if evidence.asked else []
    said += _same(evidence)
    said += _adapting(evidence.frozen)
    said += _several(evidence)
    for optimizer in evidence.optimizers:
        said += _regret([r for r in evidence.regrets if r.optimizer == optimizer])
    return [line for line in said if line]


def verdict(at: Comparison) -> str:
    """What one pooled comparison shows: better, worse, nothing, or that it could show nothing."""
    pairs = sum(pair.n for pair in at.pairs)
    where = f"{at.title} with {at.optimizer}"
    if at.least > ALPHA:
        return (
            f"{where}: {count(pairs, 'pair')} of runs cannot show a difference at the 5 % level "
            f"(the smallest possible p is {chance(at.least)}); the mean is {percent(at.mean)}."
        )
    measured = f"{percents(at.interval)}, p {chance(at.p)}, corrected {chance(at.holm)}"
    wins = f"better on {at.wins[0]} of {count(len(at.pairs), 'problem')}"
    if not at.holm < ALPHA:
        return f"{where}: no difference shown ({measured}; {wins})."
    kind = "better" if at.mean < 0 else "worse"
    return f"{where}: {kind} on these problems ({measured}; {wins}){_further(at)}."


def _further(at: Comparison) -> str:
    if at.p_problems < ALPHA:
        return f", and so may be expected on further ones like these (p {chance(at.p_problems)})"
    return f"; that further problems would agree is not shown (p {chance(at.p_problems)})"


def _differ(ranking: Ranking) -> str:
    if not ranking.possible:
        return "There is no ranking: it needs two problems that the methods have in common."
    n, k, name = len(ranking.problems), len(ranking.methods), ranking.labels.__getitem__
    ranks = sorted(ranking.ranks, key=lambda m: ranking.ranks[m])
    p = ranking.friedman.permuted_p
    where = f"{k} methods on {n} problems, {ranking.title}"
    if not p < ALPHA:
        return (
            f"{where}: the ranks differ by no more than chance makes them differ (Friedman, p "
            f"{chance(p)}), so no method may be called best. {name(ranks[0])} has the lowest mean "
            f"rank, "
            f"{ranking.ranks[ranks[0]]:.2f}."
        )
    best = ranking.ranks[ranks[0]]
    apart = [m for m in ranks if ranking.ranks[m] - best > ranking.critical]
    beside = k - 1 - len(apart)
    said = (
        f"{where}: the ranks differ (Friedman, p {chance(p)}). {name(ranks[0])} has the lowest "
        f"mean rank, {best:.2f}; "
    )
    if not apart:
        return f"{said}the Nemenyi test tells no other method from it."
    rest = count(beside, "other")
    return f"{said}it differs from {listed([*map(name, apart)], MOST)}; {rest} may be as good."


def _against(at: Family | None, baseline: str) -> list[str]:
    if at is None:
        return []
    said: list[str] = []
    for optimizer in dict.fromkeys(c.optimizer for c in at.comparisons):
        here = [c for c in at.comparisons if c.optimizer == optimizer]
        if min(c.least for c in here) > ALPHA:
            said.append(f"Against {baseline} with {optimizer}: too few runs to show anything.")
            continue
        shown = [c for c in here if c.holm < ALPHA]
        better = sorted((c for c in shown if c.mean < 0), key=lambda c: c.mean)
        worse = sorted((c for c in shown if c.mean > 0), key=lambda c: -c.mean)
        named = {
            kind: listed([f"{c.first_label} ({percent(c.mean)})" for c in comparisons], MOST)
            for kind, comparisons in (("better", better), ("worse", worse))
        }
        parts = [f"{kind}: {names or 'none'}" for kind, names in named.items()]
        rest = len(here) - len(shown)
        said.append(
            f"Against {baseline} with {optimizer}, corrected for {len(at.comparisons)} tests: "
            f"{'; '.join(parts)}; no difference shown for {count(rest, 'other')}."
        )
    return said


def _same(evidence: Evidence) -> list[str]:
    """Whether the published algorithm is the fixed weighting at which its floor leaves it."""
    if evidence.asked is None:
        return []
    said: list[str] = []
    for at in (c for c in evidence.asked.comparisons if c.second.startswith("fixed:")):
        pairs = [pair for pair in at.pairs if not at.only_warms_up(pair)]
        if not pairs:
            continue
        same = [pair.block.problem for pair in pairs if pair.equivalence < ALPHA]
        apart = [pair.block.problem for pair in pairs if pair.holm < ALPHA]
        names = (pair.block.problem for pair in pairs)
        neither = [name for name in names if name not in (*same, *apart)]
        said.append(
            f"Is {at.first} distinguishable from {at.second} with {at.optimizer}? Shown to be the "
            "same within half the standard deviation over seeds: "
            f"{listed(same) or 'nowhere'}; shown to differ: {listed(apart) or 'nowhere'}; "
            f"neither: {listed(neither) or 'nowhere'}."
        )
    return said


def _adapting(at: Family | None) -> list[str]:
    if at is None:
        return []
    shown = [c for c in at.comparisons if c.holm < ALPHA]
    names = {
        kind: [f"{c.first} with {c.optimizer} ({percent(c.mean)})" for c in found]
        for kind, found in (
            ("helps", [c for c in shown if c.mean < 0]),
            ("harms", [c for c in shown if c.mean > 0]),
        )
    }
    rest = len(at.comparisons) - len(shown)
    return [
        "Adapting, against the same mean multipliers held fixed: helps "
        f"{listed(names['helps'], MOST) or 'nobody'}; harms "
        f"{listed(names['harms'], MOST) or 'nobody'}. "
        f"{rest} of {count(len(at.comparisons), 'comparison')} show no difference: there, "
        "where the multipliers end may be all that matters."
    ]


def _several(evidence: Evidence) -> list[str]:
    if not evidence.several_tasks:
        return []
    view = evidence.several_tasks[0]
    ranking = view.ranking(evidence.own)
    if len(ranking.methods) < 2:
        return []
    order = sorted(ranking.ranks, key=lambda name: ranking.ranks[name])
    where = f"On {count(len(view.problems), 'problem')} of three or more tasks, {view.title}"
    said = f"{where}, {ranking.labels[order[0]]} has the lowest mean rank of our variants"
    said += f" ({ranking.ranks[order[0]]:.2f}; next {order[1]}, {ranking.ranks[order[1]]:.2f})"
    if not ranking.possible:
        return [f"{said}. One problem is not enough to call it best."]
    p = ranking.friedman.permuted_p
    differ = "differ" if p < ALPHA else "differ by no more than chance"
    return [f"{said}. The variants {differ} (Friedman, p {chance(p)})."]


def _regret(found: Sequence[Regret]) -> list[str]:
    if not found:
        return []
    most = max(len(r.comparison.pairs) for r in found)
    everywhere = [r for r in found if len(r.comparison.pairs) == most]
    left_out = len(found) - len(everywhere)
    optimizer, nearest = found[0].optimizer, min(everywhere, key=lambda r: r.interval.estimate)
    found = everywhere
    ground = f"on {count(most, 'problem')}" + (", over its seeds alone" if most == 1 else "")
    good = [r.label for r in found if r.verdict == "as good"]
    bad = sum(r.verdict == "worse" for r in found)
    cost = [r.sweep_cost for r in found if math.isfinite(r.sweep_cost)]
    price = f"; the sweep cost {min(cost):.0f} to {max(cost):.0f} runs of a method" if cost else ""
    answer = f"yes for {listed(good)}" if good else "shown for no method"
    return [
        f"As good as a sweep at the price of one run, with {optimizer}, {ground} (the interval "
        f"ends below {100 * MARGIN:.0f} % worse than the best fixed weighting): {answer}; shown to "
        f"be worse: {bad} of {len(found)}; the nearest is {nearest.label}, "
        f"{percents(nearest.interval)}{price}"
        + (f"; {left_out} that ran on fewer problems are not judged." if left_out else ".")
    ]


def cautions(evidence: Evidence) -> list[str]:
    """What may not be concluded from such runs, whatever the numbers are."""
    few, most = evidence.seeds
    least = evidence.least_p()
    seeds = f"{few} seeds" if few == most else f"{few} to {most} seeds"
    said = [
        f"With {seeds} the smallest two-sided p of an exact paired test on one problem is "
        f"{chance(least)}"
        + (
            ": no difference on a single problem can be significant at the 5 % level. Only the "
            "tests over all problems can."
            if least > ALPHA
            else f". Corrected for more than {int(ALPHA / least)} tests it is above 5 %."
        ),
        "“No difference shown” does not mean “no difference”. Only the tests of equivalence show "
        "that.",
        "The problems were chosen, not drawn. A finding over pairs of runs speaks of these "
        "problems, and of further ones only where the test over problems says so.",
        "All methods had the same grid of learning rates and weight decays and the same number of "
        f"trials, and validation data chose among them. {SWEEP} alone had a trial for every point "
        f"of its grid of weights; {TUNED} had as many as the others.",
    ]
    if few < 5:
        said.append("Some methods have fewer than five seeds: their intervals are guesses.")
    if len(evidence.problems) < 6:
        n = count(len(evidence.problems), "problem")
        said.append(f"{n}: too few for a test over problems to reach 5 %. It needs six.")
    if len(evidence.processors) > 1:
        said.append(
            "The runs come from different processors, so times and memory do not compare "
            f"({'; '.join(evidence.processors)})."
        )
    if len(evidence.versions) > 1:
        said.append(f"Different versions made the runs: {'; '.join(evidence.versions)}.")
    return said


def troubles(evidence: Evidence) -> list[str]:
    """What diverged, failed or is missing."""
    by_method: dict[str, list[str]] = {}
    for (method, block), n in evidence.diverged.items():
        by_method.setdefault(method, []).append(f"{block} ({n})")
    said = [f"{m} diverged on {listed(where)}." for m, where in sorted(by_method.items())]
    for (method, error), where in sorted(evidence.failed.items()):
        places = listed([f"{block} ({n})" for block, n in where.items()])
        said.append(f"{method} failed on {places}: {error}")
    for (method, block), (warm_up, steps) in sorted(evidence.only_warms_up.items()):
        said.append(
            f"{method} gave equal weights throughout on {block}: its warm-up of {warm_up} steps is "
            f"as long as the run ({steps}). Give it more steps."
        )
    for method, blocks in evidence.missing.items():
        said.append(f"{method} has no final run on {listed(blocks)}.")
    for block, n in evidence.short.items():
        said.append(f"{block}: {count(n, 'method')} with fewer seeds than others.")
    return said or ["Nothing diverged, nothing failed, and nothing is missing."]
