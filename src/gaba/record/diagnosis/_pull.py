"""How hard the tasks pulled: under the multipliers used, under equal weights, and altogether."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from gaba.record.diagnosis._result import Figure, Finding, Grade
from gaba.record.diagnosis._thresholds import DOMINATES, DROWNS, SHRUNK, UNEQUAL
from gaba.record.diagnosis._view import Floats, View, over, ratios, task_medians
from gaba.record.diagnosis._words import LISTED_TASKS, factor, named, times

Figures: TypeAlias = dict[str, Figure]


def rising(view: View) -> Finding | None:
    """Tasks that are unequal because their multipliers have only begun to grow."""
    apart, risen = imbalance(view), view.risen()
    if apart is None or apart.kind != "imbalance" or not risen:
        return None
    tasks = [view.tasks[k] for k in risen]
    last = [float(view.multipliers[view.present[:, k], k][-1]) for k in risen]
    one = len(tasks) == 1
    at = ", ".join(f"{m:.3g}" for m in last)
    text = (
        f"The multiplier{'s' * (not one)} of {named(tasks)} {'is' if one else 'are'} still rising, "
        f"as fast as the method lets {'it' if one else 'them'}: "
        f"{'it is' if one else 'they are'} at {at}. Look again after more steps."
    )
    headline = (
        f"the multiplier of '{tasks[0]}' is still rising ({at} now). Look again later."
        if one
        else f"{len(tasks)} multipliers are still rising. Look again later."
    )
    steps = [float(n) for n in risen.values()]
    figures = {"tasks": tasks, "multipliers": last, "steps": steps}
    return Finding("rising", text, figures, "", "watch", headline)


def would_dominate(view: View) -> Finding | None:
    """The task that would have dominated under equal weights, judged by norms."""
    found = _strongest(view, view.pulls)
    if found is None or view.observed:
        return None
    strong, ratio, medians = found
    text = (
        f"Under equal weights '{view.tasks[strong]}' would have pulled {times(ratio)} times as "
        f"hard as {_others(view, strong)}."
    )
    figures = {"task": view.tasks[strong], "ratio": ratio, "median_norms": medians}
    return Finding("would-dominate", text, figures)


def dominated(view: View) -> Finding | None:
    """The task that did dominate, judged by contributions."""
    found = _strongest(view, view.contributions)
    if found is None:
        return None
    strong, ratio, medians = found
    task, rest = view.tasks[strong], [k for k in range(len(view.tasks)) if k != strong]
    others, weak = _others(view, strong), rest[int(np.nanargmin([medians[k] for k in rest]))]
    how = "As the losses are written," if view.observed else "Under the weights used"
    text = f"{how} '{task}' pulled {times(ratio)} times as hard as {others}."
    figures = {"task": task, "ratio": ratio, "median_contributions": medians}
    if not math.isfinite(ratio):
        headline = f"'{task}' alone counts: the multiplier of {others} is 0."
    elif ratio >= DROWNS:
        headline = f"'{task}' drowns {others}, {times(ratio)} to 1."
    else:
        headline = f"'{task}' pulls {times(ratio)} times as hard as {others}."
    headline += _advice(view, ratio, strong, weak)
    code = _switch(view)
    return Finding("dominated", text, figures, code, _grade(view, ratio, strong, weak), headline)


def _advice(view: View, ratio: float, strong: int, weak: int) -> str:
    if view.rare[strong]:
        return " But few steps have it."
    if view.converged(weak):
        return f" '{view.tasks[weak]}' may have converged."
    if not view.as_written or not math.isfinite(ratio):
        return ""
    if len(view.tasks) > 2:
        return " Balance them."
    return f" Balance them, or multiply '{view.tasks[weak]}' by {factor(ratio)}."


def _grade(view: View, ratio: float, strong: int, weak: int) -> Grade:
    """The grade of a ratio of contributions; what may be right as it is, is only watched."""
    if ratio <= UNEQUAL:
        return "fine"
    waits = view.warming or view.risen() or view.converged(weak) or view.rare[strong]
    return "act" if ratio >= DROWNS and not waits else "watch"


def _switch(view: View) -> str:
    """The line that balances, unless the run has it already."""
    known = view.about.get("method", "" if view.as_written else "gaba")
    return "" if known == "gaba" else view.balancing()


def _strongest(view: View, pulls: Floats) -> tuple[int, float, list[float]] | None:
    """The task that pulls hardest, its pull over that of all others together, and the medians."""
    rows = pulls[view.lived]
    if not len(rows):
        return None
    parts = task_medians(over(rows, np.nansum(rows, axis=1, keepdims=True)))
    strongest = int(np.nanargmax(parts))
    own = rows[:, strongest]
    known = ~np.isnan(own)
    others = np.nansum(np.delete(rows[known], strongest, axis=1), axis=1)
    ratio = float(np.median(over(own[known], others)))
    return None if ratio < DOMINATES else (strongest, ratio, task_medians(rows).tolist())


def _others(view: View, strong: int) -> str:
    rest = [task for k, task in enumerate(view.tasks) if k != strong]
    return f"'{rest[0]}'" if len(rest) == 1 else "all the others together"


def imbalance(view: View) -> Finding | None:
    """How far the contributions were from equal, among the tasks that pulled at all."""
    rows = view.lived
    contributions = view.contributions[rows] if len(rows) else view.contributions
    typical = task_medians(contributions)
    if np.isfinite(typical).sum() < 2:
        return None
    strong, weak = int(np.nanargmax(typical)), int(np.nanargmin(typical))
    overall = float(ratios(typical[None])[0])
    figures: Figures = {"overall": overall, "median_contributions": typical.tolist()}
    if not len(rows):
        return _over_the_run(view, strong, weak, overall, figures)
    apart = ratios(contributions)
    median, worst = float(np.median(apart)), float(apart.max())
    worst_step = view.step(rows[int(apart.argmax())])
    figures |= {"median": median, "worst": worst, "worst_step": float(worst_step)}
    enough = " No balancer is needed." if view.observed else ""
    if times(worst) == "1.00":
        text, headline = "Contributions were equal in every step.", "the tasks pull equally hard."
        return Finding("balanced", text, figures, "", "fine", headline + enough)
    if median <= UNEQUAL:
        text = (
            f"Contributions were equal within a factor of {times(median)} in the median step; "
            f"at worst {times(worst)} (step {worst_step})."
        )
        within = "" if times(median) == "1.00" else f", within a factor of {times(median)}"
        headline = f"the tasks pull equally hard{within}."
        return Finding("balanced", text, figures, "", "fine", headline + enough)
    text = (
        f"Contributions were {times(median)} times apart in the median step, {times(worst)} times "
        f"at worst (step {worst_step}); 1 is equal."
    )
    if overall <= UNEQUAL:
        text += f" Over the run they were only {times(overall)} apart: noise, not bias."
        headline = f"over the run the tasks pull equally hard, within a factor of {times(overall)}."
        return Finding("imbalance", text, figures, "", "fine", headline)
    # noise widens the median of many tasks, and single steps the ratio of the medians
    return _apart(view, strong, weak, min(overall, median), text, figures)


def _over_the_run(view: View, strong: int, weak: int, overall: float, figures: Figures) -> Finding:
    """Tasks that are never in one step, compared over the whole run."""
    if overall <= UNEQUAL:
        text = (
            f"No step had two tasks that pull. Over the run their contributions were equal within "
            f"a factor of {times(overall)}."
        )
        headline = (
            f"the tasks take turns and pull equally hard, within a factor of {times(overall)}."
        )
        return Finding("balanced", text, figures, "", "fine", headline)
    text = (
        "No step had two tasks that pull. Over the run their contributions were "
        f"{times(overall)} times apart; 1 is equal."
    )
    return _apart(view, strong, weak, overall, text, figures)


def _apart(
    view: View, strong: int, weak: int, ratio: float, text: str, figures: Figures
) -> Finding:
    louder, quieter = view.tasks[strong], view.tasks[weak]
    if not math.isfinite(ratio):
        headline = f"'{quieter}' does not count: its multiplier is 0."
    elif ratio >= DROWNS:
        headline = f"'{louder}' drowns '{quieter}', {times(ratio)} to 1."
    else:
        headline = f"'{louder}' pulls {times(ratio)} times as hard as '{quieter}'."
    headline += _advice(view, ratio, strong, weak)
    typical = np.array(figures["median_contributions"])
    known = np.flatnonzero(typical > 0)
    if view.as_written and 2 < len(known) <= LISTED_TASKS:
        small = [k for k in known if k != strong]
        said = [f"'{view.tasks[k]}' by {factor(typical[strong] / typical[k])}" for k in small]
        text += f" Multiply {', '.join(said[:-1])} and {said[-1]} to even them out by hand."
    code = _switch(view)
    return Finding("imbalance", text, figures, code, _grade(view, ratio, strong, weak), headline)


def faded(view: View) -> Finding | None:
    """Tasks that pull less because their norm fell far, as it does when a task converges."""
    typical = view.typical(view.contributions)
    low = UNEQUAL * typical < np.nanmax(typical, initial=0)
    at = [k for k in np.flatnonzero(low) if view.converged(int(k))]
    if not at:
        return None
    falls = [view.faded(k) for k in range(len(view.tasks))]
    said = ", ".join(f"'{view.tasks[k]}' by a factor of {times(falls[k])}" for k in at)
    text = (
        f"Norms fell during the run: {said}. A task that converges stops pulling. That is no "
        "imbalance to repair, unless its loss should still fall."
    )
    return Finding("faded", text, {"tasks": [view.tasks[k] for k in at], "factors": falls})


def shrunk(view: View) -> Finding | None:
    """By how much the update of SGD was shorter than that of the plain sum of the losses."""
    rows = view.lived
    if set(view.about.get("optimizer", "").split(", ")) != {"SGD"} or not len(rows):
        return None
    plain = np.nansum(view.pulls[rows], axis=1)
    used = np.nansum(view.contributions[rows], axis=1)
    shorter = float(np.median(over(plain, used)))
    if not shorter > SHRUNK * (1 + 1e-9):
        return None
    text = (
        f"The update was about {times(shorter)} times shorter than that of the plain sum of the "
        "losses (by the sum of the contributions). SGD slows down by as much."
    )
    headline = f"the multipliers make the steps of SGD {times(shorter)} times shorter."
    code = view.line(scale="sum")
    return Finding("shrunk", text, {"factor": shorter}, code, "watch", headline)
