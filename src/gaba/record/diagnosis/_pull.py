"""How hard the tasks pulled: under equal weights, under the multipliers used, and altogether."""

from __future__ import annotations

import numpy as np

from gaba.record.diagnosis._result import Finding, times
from gaba.record.diagnosis._view import Floats, View, over, ratios, task_medians

DOMINATES = 2.0
"""A task dominates when it pulls this many times as hard as all the others together: then at
least two thirds of the summed pull are its own, whatever the number of tasks."""

UNEQUAL = 2.0
"""Contributions within a factor of two count as balanced: norms of single batches scatter by
tens of per cent, and no task is drowned out at half the pull of another."""

SHRUNK = 2.0
"""An update less than this many times shorter is within what any search of the learning rate
covers, and is not reported."""


def would_dominate(view: View) -> Finding | None:
    """The task that would have dominated under equal weights, judged by norms."""
    found = _strongest(view, view.pulls)
    if found is None:
        return None
    task, ratio, medians, others = found
    text = (
        f"Under equal weights '{task}' would have pulled {times(ratio)} times as hard as {others}."
    )
    return Finding("would-dominate", text, {"task": task, "ratio": ratio, "median_norms": medians})


def dominated(view: View) -> Finding | None:
    """The task that did dominate, judged by contributions."""
    found = _strongest(view, view.contributions)
    if found is None:
        return None
    task, ratio, medians, others = found
    text = f"Under the weights used '{task}' pulled {times(ratio)} times as hard as {others}."
    figures = {"task": task, "ratio": ratio, "median_contributions": medians}
    return Finding("dominated", text, figures)


def _strongest(view: View, pulls: Floats) -> tuple[str, float, list[float], str] | None:
    rows = pulls[view.contested]
    if not len(rows):
        return None
    parts = task_medians(over(rows, np.nansum(rows, axis=1, keepdims=True)))
    strongest = int(np.nanargmax(parts))
    own = rows[:, strongest]
    known = ~np.isnan(own)
    others = np.nansum(np.delete(rows[known], strongest, axis=1), axis=1)
    ratio = float(np.median(over(own[known], others)))
    if ratio < DOMINATES:
        return None
    rest = [task for task in view.tasks if task != view.tasks[strongest]]
    named = f"'{rest[0]}'" if len(rest) == 1 else "all the others together"
    return view.tasks[strongest], ratio, task_medians(rows).tolist(), named


def balance(view: View) -> Finding | None:
    """How far the contributions were from equal, among the tasks that pulled at all."""
    rows = np.flatnonzero(view.contested)
    if not len(rows):
        return None
    contributions = view.contributions[rows]
    apart, typical = ratios(contributions), task_medians(contributions)
    overall = float(ratios(typical[None])[0])
    median, worst = float(np.median(apart)), float(apart.max())
    worst_step = view.step(rows[int(apart.argmax())])
    figures = {
        "median": median,
        "worst": worst,
        "worst_step": float(worst_step),
        "overall": overall,
        "median_contributions": typical.tolist(),
    }
    if times(worst) == "1.00":
        return Finding("balanced", "Contributions were equal in every step.", figures)
    if median <= UNEQUAL:
        text = (
            f"Contributions were equal within a factor of {times(median)} in the median step; "
            f"at worst {times(worst)} (step {worst_step})."
        )
        return Finding("balanced", text, figures)
    text = (
        f"Contributions were {times(median)} times apart in the median step, {times(worst)} times "
        f"at worst (step {worst_step}); 1 is equal."
    )
    if overall <= UNEQUAL:
        text += f" Over the run they were only {times(overall)} apart: noise, not bias."
        return Finding("imbalance", text, figures)
    other = view.about.get("method", "gaba") != "gaba"
    return Finding("imbalance", text, figures, view.line(method="gaba") if other else "")


def shrunk(view: View) -> Finding | None:
    """By how much the update was shorter than that of the plain sum of the losses."""
    rows = view.contested
    if not rows.any():
        return None
    plain = np.nansum(view.pulls[rows], axis=1)
    used = np.nansum(view.contributions[rows], axis=1)
    factor = float(np.median(over(plain, used)))
    if not factor > SHRUNK * (1 + 1e-9):
        return None
    text = (
        f"The update was about {times(factor)} times shorter than that of the plain sum of the "
        "losses (by the sum of the contributions). Adam and its kin divide a steady factor out; "
        "plain SGD slows down as much."
    )
    return Finding("shrunk", text, {"factor": factor}, view.line(scale="sum"))
