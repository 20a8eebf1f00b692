"""What the multipliers did: reach a limit, stand still, jump about, or what a fixed one does."""

from __future__ import annotations

import math

import numpy as np

from gaba.record.diagnosis._pull import UNEQUAL, balance
from gaba.record.diagnosis._result import Finding, named, percent, times, weights_text
from gaba.record.diagnosis._view import Bools, Floats, View, ratios, runs, task_medians

SATURATED_SHARE = 0.01
"""A floor that binds in fewer steps than these catches outliers, which is what it is for."""

STILL = 1.05
"""Weights have stood still while the largest and the smallest value of each lie within this
ratio: a weight that is 5 % off changes a contribution by 5 %, less than the scatter of norms."""

STILL_SHARE = 0.25
"""How much of the run weights must have stood still: any smoothed weight does so for a while."""

WOULD_DO = 1.25
"""A fixed weighting does the same in a step whose weights are all within this ratio of it: what
is left is a quarter of a contribution, and no repeatable test error follows so small a change."""

WOULD_DO_SHARE = 0.95
"""The part of the second half of the run in which a fixed weighting must do the same. The first
half is left out: warm-up and settling are not what a fixed weighting is compared with."""

NOISY = 0.1
"""Median relative change of a weight from one measurement to the next. An EMA with decay 0.99
passes on a hundredth of a jump, so 10 % a step means that nothing smooths in earnest."""

NOISY_DRIFT = 0.5
"""The part of its way that a weight may get somewhere and still count as noisy; a weight that
moves steadily has 1 and follows its norms."""

ENOUGH_STEPS = 50
"""Fewer steps than these show no habit of the weights."""


HELD_SHARE = 0.5
"""The part of its measured steps in which a task must be at the limit that keeps it unequal."""


def limited(view: View) -> Finding | None:
    """Tasks that stay unequal because a multiplier is at its limit; and the limit to use."""
    limit = float(view.about.get("limit", "inf"))
    typical = task_medians(view.contributions)
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
    enough = _round_up(limit * apart)
    text = (
        f"Use limit={enough:_}: the limit of {limit:,g} leaves '{view.tasks[strong]}' pulling "
        f"{times(apart)} times as hard as '{view.tasks[weak]}'."
    )
    figures = {"tasks": held, "ratio": apart, "limit": limit, "enough": float(enough)}
    return Finding("limited", text, figures, view.line(limit=enough))


EARLY = 0.5
"""The part of its steps in which a task rises without a pause, up to the last one, in a run that
has only begun: in a longer one the rise is an answer to norms that changed."""


def rising(view: View) -> Finding | None:
    """Tasks that are unequal because their multipliers have only begun to grow."""
    apart = balance(view)
    if apart is None or apart.kind != "imbalance":
        return None
    here = view.present
    lengths = [_to_the_end(view.rising[here[:, k], k]) for k in range(len(view.tasks))]
    at = [k for k, n in enumerate(lengths) if n and n >= EARLY * here[:, k].sum()]
    if not at:
        return None
    tasks = [view.tasks[k] for k in at]
    last = [float(view.multipliers[here[:, k], k][-1]) for k in at]
    one = len(at) == 1
    text = (
        f"The multiplier{'s' * (not one)} of {named(tasks)} {'is' if one else 'are'} still rising, "
        f"as fast as the method lets {'it' if one else 'them'}: "
        f"{'it is' if one else 'they are'} at {', '.join(f'{m:.3g}' for m in last)}. "
        "Look again after more steps."
    )
    figures = {"tasks": tasks, "multipliers": last, "steps": [float(lengths[k]) for k in at]}
    return Finding("rising", text, figures)


def _to_the_end(mask: Bools) -> int:
    """How long the stretch is in which ``mask`` (N,) is true, up to its end."""
    start, length = runs(mask)[-1] if mask.any() else (0, 0)
    return length if start + length == len(mask) else 0


def _at_limits(view: View, limit: float) -> tuple[Bools, Bools]:
    """Where (N, K) a multiplier is held at the limit, and where at one over it."""
    m, held = view.multipliers, view.saturated & math.isfinite(limit)
    return held & np.isclose(m, limit, atol=0), held & np.isclose(m, 1 / limit, atol=0)


def _round_up(limit: float) -> int:
    """The next power of ten."""
    return 10 ** math.ceil(math.log10(limit) - 1e-9)


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
    limit = float(view.about.get("limit", "inf"))
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
        enough = limit * (unequal if math.isfinite(unequal) else 2)
        code = view.line(limit=_round_up(enough))
    else:
        floor = float(np.median(view.weights[view.saturated]))
        text = (
            f"The weight of {named(held, 'or')} reached its minimum ({floor:.3g}) {counted}, and "
            "the rule asked for less."
        )
        figures["floor"] = floor
        code = view.line(method="gaba")
    return Finding("saturated", text, figures, code if unequal > UNEQUAL else "")


def stood_still(view: View) -> Finding | None:
    """Since when the weights have not moved."""
    rows = np.flatnonzero(view.complete)
    if len(rows) < ENOUGH_STEPS:
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
    warm_up = int(view.about.get("warm-up", "0"))
    reason = (
        f", because the method warms up for {warm_up:,} steps"
        if view.step(rows[-1]) < warm_up
        else ""
    )
    text = (
        f"The weights never moved: they were {wording} throughout{reason}."
        if still == len(rows)
        else f"The weights have stood still since step {since} ({percent(share)} of the steps): a "
        f"fixed weighting of {wording} would have done the same since then."
    )
    return Finding("still", text, {"since": float(since), "share": share, "weights": fixed})


def fixed_would_do(view: View) -> Finding | None:
    """Whether one fixed weighting does what the weights did in the second half of the run."""
    rows = np.flatnonzero(view.complete)
    if len(rows) < ENOUGH_STEPS:
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
    return Finding("fixed-would-do", f"{text}.", figures)


def noisy(view: View) -> Finding | None:
    """Weights that jump from measurement to measurement without getting anywhere."""
    weights = view.weights[view.complete & view.measured]
    weights = weights[np.all(weights > 0, axis=1)]
    if len(weights) < ENOUGH_STEPS:
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
        "next in the median, to and fro. Smooth the norms."
    )
    figures = {"task": task, "jump": jump, "drift": drift}
    return Finding("noisy", text, figures, "method.replace(believe=gaba.stabilisers.LogEMA())")


def _typical(weights: Floats) -> list[float]:
    """The weighting in the middle of ``weights`` (N, K): medians, brought back to the simplex."""
    middle = np.median(weights, axis=0)
    return (middle / middle.sum()).tolist()


def _within(weights: Floats, fixed: Floats, ratio: float) -> Bools:
    return np.all((weights <= ratio * fixed) & (fixed <= ratio * weights), axis=1)


def _imbalance(contributions: Floats) -> float:
    known = contributions[~np.isnan(contributions).any(axis=1)]
    return float(np.median(ratios(known))) if len(known) else math.nan
