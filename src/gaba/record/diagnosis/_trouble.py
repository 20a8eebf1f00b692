"""Trouble first: steps and tasks that could not be balanced at all."""

from __future__ import annotations

import numpy as np

from gaba.record.diagnosis._result import Finding, named, percent
from gaba.record.diagnosis._view import View, runs

DEAD_STEPS = 10
"""Measured steps in a row with a norm of exactly 0. One batch without a useful example gives a
zero; ten in a row are a detached graph, a dead activation or a constant loss."""


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
        stretches = runs(view.norms[rows, k] == 0)
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
