"""What the multipliers did: reach a limit, stand still, jump about, or what a fixed one does."""

from __future__ import annotations

import math

import numpy as np

from gaba.record.diagnosis._result import Finding
from gaba.record.diagnosis._thresholds import (
    AMPLIFIED,
    DROWNS,
    FALLS,
    FEW_STEPS,
    HELD_SHARE,
    NOISY,
    NOISY_DRIFT,
    SATURATED_SHARE,
    STILL,
    STILL_SHARE,
    UNEQUAL,
    WOULD_DO,
    WOULD_DO_SHARE,
)
from gaba.record.diagnosis._view import (
    Bools,
    Floats,
    View,
    next_power,
    ratios,
    runs,
    task_medians,
)
from gaba.record.diagnosis._words import LISTED_TASKS, briefly, named, percent, times, weights_text


def limited(view: View) -> Finding | None:
    """Tasks that stay unequal because a multiplier is at its limit; and the limit to use."""
    limit = view.limit
    typical = view.typical(view.contributions)
    if not math.isfinite(limit) or np.isfinite(typical).sum() < 2:
        return None
    strong, weak = int(np.nanargmax(typical)), int(np.nanargmin(typical))
    apart = float(typical[strong] / typical[weak])
    if not UNEQUAL < apart < math.inf:
        return None
    known = np.isfinite(view.pulls)
    high, low = _at_limits(view, limit)
    most = HELD_SHARE * np.maximum(known.sum(axis=0), 1)
    short = ((high & known).sum(axis=0) >= most) & (UNEQUAL * typical < typical[strong])
    long = ((low & known).sum(axis=0) >= most) & (UNEQUAL * typical[weak] < typical)
    held = [task for task, at in zip(view.tasks, short | long, strict=True) if at]
    if not held:
        return None
    enough = next_power(limit * apart)
    text = (
        f"Use limit={enough:_}: the limit of {limit:,g} leaves '{view.tasks[strong]}' pulling "
        f"{times(apart)} times as hard as '{view.tasks[weak]}'."
    )
    figures = {"tasks": held, "ratio": apart, "limit": limit, "enough": float(enough)}
    headline = (
        f"use limit={enough:_}. With {limit:,g}, '{view.tasks[strong]}' pulls {times(apart)} times "
        f"as hard as '{view.tasks[weak]}'."
    )
    grade = "act" if apart >= DROWNS else "watch"
    return Finding("limited", text, figures, view.line(limit=enough), grade, headline)


def _at_limits(view: View, limit: float) -> tuple[Bools, Bools]:
    """Where (N, K) a multiplier is held at the limit, and where at one over it."""
    m, held = view.multipliers, view.saturated & math.isfinite(limit)
    return held & np.isclose(m, limit, atol=0), held & np.isclose(m, 1 / limit, atol=0)


def saturated(view: View) -> Finding | None:
    """Multipliers at their limit, and weights at their floor."""
    any_task = np.asarray(view.saturated.any(axis=1))
    share = float(any_task.mean())
    if share < SATURATED_SHARE:
        return None
    shares = view.saturated.mean(axis=0)
    held = [task for task, part in zip(view.tasks, shares, strict=True) if part]
    first, n = view.step(int(np.argmax(any_task))), int(any_task.sum())
    start, length = runs(any_task)[-1]
    when = (
        f"in every step since {view.step(start)}"
        if start + length == len(any_task) and length == n
        else f"first in step {first}"
    )
    counted = f"in {percent(share)} of the steps ({n} of {len(any_task)}, {when})"
    limit = view.limit
    high, low = _at_limits(view, limit)
    apart = ratios(view.contributions[any_task & view.contested])
    unequal = float(np.median(apart)) if len(apart) else math.inf
    figures = {
        "share": share,
        "count": float(n),
        "first_step": float(first),
        "shares": shares.tolist(),
    }
    if (high | low).any():
        text = (
            f"The multiplier of {named(held, 'or')} was at its limit {counted}: no loss is "
            f"multiplied or divided by more than {limit:,g}."
        )
        figures["limit"] = limit
        headline = f"the multiplier of {briefly(held)} is at its limit of {limit:,g}."
        enough = limit * (unequal if math.isfinite(unequal) else 2)
        code = view.line(limit=next_power(enough))
    else:
        floor = float(np.median(view.weights[view.saturated]))
        text = (
            f"The weight of {named(held, 'or')} reached its minimum ({floor:.3g}) {counted}, and "
            "the rule asked for less."
        )
        figures["floor"] = floor
        headline = f"the weight of {briefly(held)} is at its minimum ({floor:.3g})."
        code = view.balancing()
    if unequal <= UNEQUAL:
        return Finding("saturated", text, figures)
    return Finding("saturated", text, figures, code, "watch", headline)


def amplified(view: View) -> Finding | None:
    """Losses that are multiplied by nearly all that the limit allows, and do not fall."""
    if not math.isfinite(view.limit) or len(view.steps) < FEW_STEPS:
        return None
    quarter = len(view.steps) // 4
    third, fourth = (
        task_medians(np.where(view.finite[rows, None], view.losses[rows], np.nan))
        for rows in (slice(-2 * quarter, -quarter), slice(-quarter, None))
    )
    late = task_medians(view.multipliers[-2 * quarter :])
    falls = third - fourth >= FALLS * np.abs(third)
    known = np.isfinite(third) & np.isfinite(fourth)
    at = np.flatnonzero((late >= AMPLIFIED * view.limit) & (late > UNEQUAL) & known & ~falls)
    if not len(at):
        return None
    tasks = [view.tasks[k] for k in at]
    said = ", ".join(f"'{view.tasks[k]}' by {late[k]:.3g}" for k in at)
    one = len(at) == 1
    text = (
        f"Multiplied by nearly all that the limit of {view.limit:,g} allows, and not falling over "
        f"the second half of the run: {said}. A loss that has reached its end, or a regularizer, "
        f"gains nothing by that, and the other tasks pay. Take a regularizer out of `tasks`: "
        "`fixed=` adds it as it is."
    )
    headline = (
        f"{briefly(tasks)} {'is' if one else 'are'} multiplied by {late[at].max():.3g} and "
        f"{'does' if one else 'do'} not fall."
    )
    if len(view.tasks) - len(at) < 2:
        code = "sum(losses.values()).backward()"
    else:
        kept = f"[t for t in tasks if t not in {tasks}]"
        fixed = ", ".join(f"{task!r}: 1.0" for task in tasks)
        code = f"gaba.Balancer({kept}, shared, fixed={{{fixed}}})"
    figures = {"tasks": tasks, "multipliers": late.tolist()}
    return Finding("amplified", text, figures, code, "watch", headline)


def spared(view: View) -> Finding | None:
    """Losses that are never amplified because of their names."""
    tasks = view.spared
    if not tasks:
        return None
    text = (
        f"Never multiplied by more than 1: {named(tasks)}, by name a regularizer. If it is a task "
        "like the others, use the code below; otherwise `fixed=` says so."
    )
    others = [task for task in view.tasks if task not in tasks]
    headline = ""
    if len(others) < 2:
        alone = f"beside '{others[0]}'" if others else "here"
        headline = f"there is nothing to balance {alone}: {briefly(tasks)} is a regularizer."
    code = "gaba.Balancer(tasks, shared, gaba.methods.get('gaba', spared=()))"
    return Finding("spared", text, {"tasks": tasks}, code, "fine", headline)


def stood_still(view: View) -> Finding | None:
    """Since when the weights have not moved."""
    rows = np.flatnonzero(view.complete)
    if len(rows) < FEW_STEPS or view.constant:
        return None
    weights = view.weights[rows]
    backwards = weights[::-1]
    highest = np.maximum.accumulate(backwards, axis=0)
    lowest = np.minimum.accumulate(backwards, axis=0)
    still = int(np.all(highest <= STILL * lowest, axis=1).sum())
    if still < STILL_SHARE * len(rows):
        return None
    fixed = _typical(weights[-still:])
    share = still / len(rows)
    since = view.step(rows[len(rows) - still])
    wording = weights_text(fixed, view.tasks)
    reason = f", because the method warms up for {view.warm_up:,} steps" if view.warming else ""
    text = (
        f"The weights never moved: they were {wording} throughout{reason}."
        if still == len(rows)
        else f"The weights have stood still since step {since} ({percent(share)} of the steps): a "
        f"fixed weighting of {wording} would have done the same since then."
    )
    figures = {"since": float(since), "share": share, "weights": fixed}
    return Finding("still", text, figures, _fixed(view, view.multipliers[rows[-still:]]))


def fixed_would_do(view: View) -> Finding | None:
    """Whether one fixed weighting does what the weights did in the second half of the run."""
    rows = np.flatnonzero(view.complete)
    if len(rows) < FEW_STEPS or view.constant:
        return None
    weights = view.weights[rows]
    if (weights.max(axis=0) <= STILL * weights.min(axis=0)).all():
        return None  # it was a fixed weighting
    half = weights[len(rows) // 2 :]
    fixed = np.array(_typical(half))
    within = _within(weights, fixed, WOULD_DO)
    share = float(within[len(rows) // 2 :].mean())
    if share < WOULD_DO_SHARE:
        return None
    pulls = view.pulls[rows[len(rows) // 2 :]]
    by_fixed, by_used = _imbalance(fixed * pulls), _imbalance(half * pulls)
    text = (
        f"A fixed weighting would do: {weights_text(fixed.tolist(), view.tasks)} is within "
        f"{percent(WOULD_DO - 1)} of every weight in {percent(share)} of the second half"
    )
    if np.isfinite([by_fixed, by_used]).all():
        text += (
            f", with a median imbalance of {times(by_fixed)} on the recorded norms "
            f"against {times(by_used)}"
        )
    figures = {
        "weights": fixed.tolist(),
        "share": share,
        "share_of_all": float(within.mean()),
        "imbalance_fixed": by_fixed,
        "imbalance_used": by_used,
    }
    code = _fixed(view, view.multipliers[rows[len(rows) // 2 :]])
    return Finding("fixed-would-do", f"{text}.", figures, code)


def noisy(view: View) -> Finding | None:
    """Weights that jump from measurement to measurement without getting anywhere."""
    weights = view.weights[view.complete & view.measured]
    weights = weights[np.all(weights > 0, axis=1)]
    if len(weights) < FEW_STEPS:
        return None
    moves = np.diff(np.log(weights), axis=0)
    jumps = np.median(np.abs(moves), axis=0)
    noisiest = int(jumps.argmax())
    jump = float(np.expm1(jumps[noisiest]))
    if jump < NOISY:
        return None
    drift = float(np.abs(moves[:, noisiest].sum()) / np.abs(moves[:, noisiest]).sum())
    if drift > NOISY_DRIFT:
        return None
    task = view.tasks[noisiest]
    text = (
        f"The weights are noisy: that of '{task}' moved by {percent(jump)} from one step to the "
        "next in the median, and back again. Smooth the norms."
    )
    figures = {"task": task, "jump": jump, "drift": drift}
    code = "method.replace(believe=gaba.stabilisers.LogEMA())"
    headline = (
        f"the weights are noisy: that of '{task}' moves by {percent(jump)} from step to step."
    )
    return Finding("noisy", text, figures, code, "watch", headline)


def _fixed(view: View, multipliers: Floats) -> str:
    """The line that fixes the multipliers at their medians; empty where the losses have them."""
    if view.as_written or view.warming or len(view.tasks) > LISTED_TASKS:
        return ""
    middle = ",".join(f"{m:.3g}" for m in np.median(multipliers, axis=0))
    return f'gaba.Balancer(tasks, shared, method="fixed:{middle}")'


def _typical(weights: Floats) -> list[float]:
    """The weighting in the middle of ``weights`` (N, K): medians, brought back to the simplex."""
    middle = np.median(weights, axis=0)
    return (middle / middle.sum()).tolist()


def _within(weights: Floats, fixed: Floats, ratio: float) -> Bools:
    return np.all((weights <= ratio * fixed) & (fixed <= ratio * weights), axis=1)


def _imbalance(contributions: Floats) -> float:
    known = contributions[~np.isnan(contributions).any(axis=1)]
    return float(np.median(ratios(known))) if len(known) else math.nan
