"""Trouble first: steps and tasks that could not be balanced at all."""

from __future__ import annotations

import numpy as np

from gaba.record.diagnosis._result import Finding, named, percent
from gaba.record.diagnosis._view import View, runs

DEAD_STEPS = 10
"""Measured steps in a row with a norm of exactly 0. One batch without a useful example gives a
zero; ten in a row are a detached graph, a dead activation or a constant loss."""


OPPOSED_SHARE = 0.1
"""The part of its measured steps in which a task must oppose the update. A batch now and then
points the other way."""


def non_finite(view: View) -> Finding | None:
    """Steps with a loss or norm that is NaN or infinite."""
    bad = ~view.finite
    if not bad.any():
        return None
    entries = bad[:, None] & view.present & ~(np.isfinite(view.losses) & np.isfinite(view.norms))
    counts = entries.sum(axis=0)
    guilty = [task for task, count in zip(view.tasks, counts, strict=True) if count]
    rows = np.flatnonzero(bad)
    first, last, n = view.step(rows[0]), view.step(rows[-1]), len(rows)
    ending = runs(bad)[-1]
    to_the_end = ending[0] + ending[1] == len(bad) and ending[1] > 1
    when = (
        f"in every step since {view.step(ending[0])}"
        if to_the_end
        else f"first in step {first}, last in step {last}"
        if n > 1
        else f"in step {first}"
    )
    what = (
        f"had a loss or norm that was not finite, from {named(guilty)}"
        if guilty
        else "left the rule or a stabiliser with a number that was not finite"
    )
    text = (
        f"{n} of {len(bad)} steps ({percent(n / len(bad))}) {what}: {when}. Nothing was learnt "
        "from them."
    )
    figures = {
        "count": float(n),
        "share": n / len(bad),
        "first_step": float(first),
        "last_step": float(last),
        "tasks": guilty,
        "counts": counts.astype(float).tolist(),
    }
    return Finding("non-finite", text, figures)


def dead(view: View) -> Finding | None:
    """Tasks whose norm was exactly 0 for many measured steps in a row."""
    clauses: list[str] = []
    tasks: list[str] = []
    lengths: list[float] = []
    since: list[float] = []
    for k, task in enumerate(view.tasks):
        rows = np.flatnonzero(view.measured & view.finite & view.present[:, k])
        opposes = view.shares[rows, k] < 0  # along the update its norm counts as 0, yet it pulls
        stretches = runs((view.norms[rows, k] == 0) & ~opposes)
        start, length = max(stretches, key=lambda stretch: stretch[1], default=(0, 0))
        if length < DEAD_STEPS:
            continue
        first, still_dead = view.step(rows[start]), start + length == len(rows)
        ending = "" if still_dead else f" to {view.step(rows[start + length - 1])}"
        tasks.append(task)
        lengths.append(float(length))
        since.append(float(first))
        clauses.append(f"'{task}' for {length} measured steps (from step {first}{ending})")
    if not tasks:
        return None
    text = (
        f"No pull at all on the shared parameters: {'; '.join(clauses)}. No multiplier makes such "
        "a task contribute. Look for a detached graph, a dead activation or a constant loss."
    )
    return Finding("dead", text, {"tasks": tasks, "steps": lengths, "since": since})


def opposed(view: View) -> Finding | None:
    """Tasks whose loss rises along the update: their share is negative."""
    known = view.finite[:, None] & view.present & np.isfinite(view.shares)
    counts = known.sum(axis=0)
    parts = (known & (view.shares < 0)).sum(axis=0) / np.maximum(counts, 1)
    at = np.flatnonzero(parts >= OPPOSED_SHARE)
    if not len(at):
        return None
    tasks = [view.tasks[k] for k in at]
    clauses = [f"'{view.tasks[k]}' in {percent(float(parts[k]))}" for k in at]
    text = (
        f"The update went against tasks in steps where that is known: {', '.join(clauses)}. "
        "There the loss rises along it, and the imbalance leaves the task out."
    )
    return Finding("opposed", text, {"tasks": tasks, "shares": parts.tolist()})


def missing(view: View) -> Finding | None:
    """Tasks that some steps did not have."""
    shares = 1 - view.present.mean(axis=0)
    if not shares.any():
        return None
    clauses = [
        f"'{task}' in {percent(share)}"
        for task, share in zip(view.tasks, shares.tolist(), strict=True)
        if share
    ]
    text = (
        f"Tasks were missing from steps: {', '.join(clauses)}. The others kept their multipliers."
    )
    return Finding("missing", text, {"shares": shares.tolist()})


def unmeasured(view: View) -> Finding | None:
    """No norm was measured in the whole history."""
    if (view.measured[:, None] & ~np.isnan(view.norms)).any():
        return None
    text = "The method needs no norms, so none were measured: how hard the tasks pull is not known."
    code = view.line(method="gaba")
    return Finding("unmeasured", text, {"steps": float(len(view.steps))}, code)


def probe_failed(view: View) -> Finding | None:
    """Why the probe was given up, or does not give every share."""
    reason = view.about.get("probe")
    if not reason:
        return None
    engines = view.engines[view.along]
    given_up = len(engines) > 0 and str(engines[-1]) == "products"
    text = (
        f"The probe was given up, because {reason}. Since then shares are measured from gradients, "
        "which costs a backward pass a task."
        if given_up
        else f"A probe failed, because {reason}. Shares it cannot give come from gradients."
    )
    return Finding("probe", text, {"reason": reason, "probes": float((engines == "probe").sum())})
