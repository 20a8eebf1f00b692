"""Steps and tasks that could not be balanced at all, and what to fix in the code around."""

from __future__ import annotations

import numpy as np

from gaba.record.diagnosis._result import Finding, Grade
from gaba.record.diagnosis._thresholds import (
    DEAD_STEPS,
    NON_FINITE_MANY,
    NON_FINITE_SHARE,
    OPPOSED_COSINE,
    OPPOSED_MOSTLY,
    OPPOSED_SHARE,
)
from gaba.record.diagnosis._view import View, runs
from gaba.record.diagnosis._words import briefly, named, percent


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
    share = n / len(bad)
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
    text = f"{n} of {len(bad)} steps ({percent(share)}) {what}: {when}. The method skipped them."
    grade: Grade = "watch" if share > NON_FINITE_SHARE else "fine"
    if to_the_end or share >= NON_FINITE_MANY:
        grade = "act"
    if share == 1:
        headline = "no step was finite, so nothing was learnt."
    elif to_the_end:
        headline = f"no step since {view.step(ending[0])} was finite."
    else:
        source = f" because of {briefly(guilty)}" if guilty else ""
        headline = f"{percent(share)} of the steps were not finite{source}."
    figures = {
        "count": float(n),
        "share": share,
        "first_step": float(first),
        "last_step": float(last),
        "tasks": guilty,
        "counts": counts.astype(float).tolist(),
    }
    return Finding("non-finite", text, figures, "", grade, headline if grade != "fine" else "")


def dead(view: View) -> Finding | None:
    """Tasks whose norm was exactly 0 for many measured steps in a row."""
    clauses: list[str] = []
    tasks: list[str] = []
    lengths: list[float] = []
    since: list[float] = []
    now: list[str] = []
    for k, task in enumerate(view.tasks):
        rows = np.flatnonzero(view.measured & view.finite & view.present[:, k])
        opposes = view.shares[rows, k] < 0  # along the update its norm counts as 0, yet it pulls
        stretches = runs((view.norms[rows, k] == 0) & ~opposes)
        start, length = max(stretches, key=lambda stretch: stretch[1], default=(0, 0))
        if length < DEAD_STEPS:
            continue
        first, still_dead = view.step(rows[start]), start + length == len(rows)
        ending = "" if still_dead else f" to {view.step(rows[start + length - 1])}"
        now += [task] * still_dead
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
    figures = {"tasks": tasks, "steps": lengths, "since": since}
    if now:
        verb = "does" if len(now) == 1 else "do"
        headline = f"{briefly(now)} {verb} not pull on the shared parameters at all."
        return Finding("dead", text, figures, "", "act", headline)
    headline = f"{briefly(tasks)} did not pull at all for {max(lengths):.0f} measured steps."
    return Finding("dead", text, figures, "", "watch", headline)


def shared(view: View) -> Finding | None:
    """Parameters in the shared part that are not shared, as the Balancer found them."""
    found = view.about.get("shared")
    if not found:
        return None
    text = (
        f"The shared part is not what the tasks share. {found.strip().rstrip('.')}. "
        'Name the part that two or more losses train, or use shared="auto".'
    )
    headline = "`shared` holds parameters that no two losses train."
    code = view.line(shared="auto")
    return Finding("shared", text, {"reason": found}, code, "watch", headline)


def opposed(view: View) -> Finding | None:
    """Tasks whose loss rises along the update: their share is negative."""
    known = view.finite[:, None] & view.present & np.isfinite(view.shares)
    counts = known.sum(axis=0)
    pulls = view.multipliers * np.nan_to_num(view.norms)
    whole = pulls.sum(axis=1, keepdims=True)
    noise = OPPOSED_COSINE * np.where(whole > 0, pulls / np.where(whole > 0, whole, 1.0), 0.0)
    parts = (known & (view.shares < -noise)).sum(axis=0) / np.maximum(counts, 1)
    at = np.flatnonzero(parts >= OPPOSED_SHARE)
    if not len(at):
        return None
    tasks = [view.tasks[k] for k in at]
    clauses = [f"'{view.tasks[k]}' in {percent(float(parts[k]))}" for k in at]
    left_out = "" if view.observed else ", and the imbalance leaves the task out"
    text = (
        f"The update went against tasks in steps where that is known: {', '.join(clauses)}. "
        f"There the loss rises along it{left_out}."
    )
    figures = {"tasks": tasks, "shares": parts.tolist()}
    worst = int(parts.argmax())
    if parts[worst] <= OPPOSED_MOSTLY:
        return Finding("opposed", text, figures)
    headline = (
        f"the update goes against '{view.tasks[worst]}' in {percent(float(parts[worst]))} of the "
        "steps."
    )
    return Finding("opposed", text, figures, "", "watch", headline)


def rare(view: View) -> Finding | None:
    """Tasks that few steps have."""
    at, counts = np.flatnonzero(view.rare), view.present.sum(axis=0)
    if not len(at):
        return None
    parts = view.present.mean(axis=0)
    clauses = [f"'{view.tasks[k]}' is in {percent(float(parts[k]))} ({counts[k]})" for k in at]
    text = (
        f"Few steps have every task: of {len(view.steps)} steps {', '.join(clauses)}. The shared "
        "parameters see such a task that seldom, whatever its multiplier. Put it into more batches."
    )
    tasks = [view.tasks[k] for k in at]
    fewest = int(np.argmin(parts))
    headline = (
        f"'{view.tasks[fewest]}' is in {percent(float(parts[fewest]))} of the steps only."
        if len(at) == 1
        else f"{briefly(tasks)} are in few steps."
    )
    return Finding("rare", text, {"tasks": tasks, "shares": parts.tolist()}, "", "watch", headline)


def missing(view: View) -> Finding | None:
    """Tasks that some steps did not have, and that are not rare."""
    shares = 1 - view.present.mean(axis=0)
    told = np.flatnonzero((shares > 0) & ~view.rare)
    if not len(told):
        return None
    clauses = [f"'{view.tasks[k]}' in {percent(float(shares[k]))}" for k in told]
    text = (
        f"Tasks were missing from steps: {', '.join(clauses)}."
        f"{'' if view.constant else ' The others kept their multipliers.'}"
    )
    return Finding("missing", text, {"shares": shares.tolist()})


def unmeasured(view: View) -> Finding | None:
    """No norm was measured in the whole history."""
    if (view.measured[:, None] & ~np.isnan(view.norms)).any():
        return None
    figures = {"steps": float(len(view.steps))}
    headline = "nothing was measured, so nobody knows how hard the tasks pull."
    if view.observed:
        text = "No step was measured yet. Look again after more steps."
        return Finding("unmeasured", text, figures, "", "watch", headline)
    if view.as_written:
        text = (
            'Equal weights need no norms, so none were measured. Use method="observe" to measure '
            "them and change nothing."
        )
        code = 'gaba.Balancer(tasks, shared, method="observe")'
    else:
        text = "The method needs no norms, so none were measured."
        code = view.balancing()
    return Finding("unmeasured", text, figures, code, "watch", headline)


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


def warm_up(view: View) -> Finding | None:
    """A warm-up that outlasts the run."""
    if not view.warming:
        return None
    n, whole = view.warm_up, view.step(-1) + 1
    text = (
        f"The method keeps its weights equal for {n:,} steps, and the run has {whole:,}: nothing "
        "was balanced yet. Train longer, or use the default, which has no warm-up."
    )
    headline = f"nothing is balanced yet, because the warm-up takes {n:,} steps."
    figures = {"steps": float(n), "run": float(whole)}
    return Finding("warm-up", text, figures, view.balancing(), "watch", headline)
