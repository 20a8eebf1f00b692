"""What the gradients say beyond their length: whether they agree, and how much of them is noise."""

from __future__ import annotations

import numpy as np

from gaba.record.diagnosis._result import Finding
from gaba.record.diagnosis._thresholds import (
    CONFLICT,
    CONFLICT_STEPS,
    SCATTERED,
    SCATTERED_LEAST,
    SCATTERED_MOVES,
)
from gaba.record.diagnosis._view import View
from gaba.record.diagnosis._words import LISTED_PARTS, LISTED_TASKS, percent, times


def conflict(view: View) -> Finding | None:
    """Which tasks pull against each other, and which with each other."""
    pairs = list(zip(*np.triu_indices(len(view.tasks), 1), strict=True))
    known = [view.cosines[:, i, j] for i, j in pairs]
    known = [column[np.isfinite(column)] for column in known]
    enough = [k for k, column in enumerate(known) if len(column) >= CONFLICT_STEPS]
    if not enough:
        return None
    medians = np.array([np.median(c) if len(c) >= CONFLICT_STEPS else np.nan for c in known])
    worst = int(np.nanargmin(medians))
    a, b = (view.tasks[k] for k in pairs[worst])
    low, high = np.quantile(known[worst], [0.25, 0.75])
    against = int((medians < CONFLICT).sum())
    figures = {
        "tasks": [a, b],
        "median": float(medians[worst]),
        "low": float(low),
        "high": float(high),
        "count": float(len(known[worst])),
        "pairs": float(against),
        "cosines": medians.tolist(),
    }
    spread = f"median of {len(known[worst])} steps, the middle half from {low:.2f} to {high:.2f}"
    if not against:
        if len(view.tasks) <= LISTED_TASKS:
            said = [
                f"{view.tasks[i]}/{view.tasks[j]} {medians[n]:.2f}"
                for n, (i, j) in enumerate(pairs)
                if np.isfinite(medians[n])
            ]
            listed = f"{', '.join(said)}. The lowest is a {spread}."
        else:
            listed = f"the lowest is {medians[worst]:.2f} ({a}/{b}, {spread})."
        return Finding("cosines", f"Cosines between the gradients: {listed}", figures)
    more = f" In all, {against} of {len(enough)} pairs are in conflict." if against > 1 else ""
    text = (
        f"The gradients of '{a}' and '{b}' have a cosine of {medians[worst]:.2f} ({spread}). What "
        f"helps one harms the other, and no weights change that.{more} Give these tasks more "
        'layers of their own, or try a method that turns gradients, such as "upgrad".'
    )
    headline = f"'{a}' and '{b}' pull against each other (cosine {medians[worst]:.2f})."
    return Finding("conflict", text, figures, "", "watch", headline)


def owners(view: View) -> Finding | None:
    """To whom each part of the shared module belongs: who pulls hardest on it."""
    said: list[str] = []
    parts: list[float] = []
    names: list[str] = []
    for name, norms in view.groups.items():
        rows = (norms * view.multipliers)[np.isfinite(norms).all(axis=1) & view.finite]
        whole = rows.sum(axis=1, keepdims=True)
        if not (whole > 0).any():
            continue
        medians = np.median((rows / np.where(whole > 0, whole, np.nan))[whole[:, 0] > 0], axis=0)
        first = int(medians.argmax())
        names.append(name)
        parts.append(float(medians[first]))
        said.append(f"{name} {percent(parts[-1])} '{view.tasks[first]}'")
    if not said:
        return None
    more = len(said) - LISTED_PARTS
    listed = ", ".join(said[:LISTED_PARTS]) + (f", and {more} more" if more > 0 else "")
    text = f"Who pulls hardest on each part, as a part of all pulls on it: {listed}."
    return Finding("owners", text, {"parts": names, "owned": parts})


def scattered(view: View) -> Finding | None:
    """The task whose norm jumps from batch to batch far more than those of the others."""
    jumps = np.full(len(view.tasks), np.nan)
    for k in range(len(view.tasks)):
        logs = np.log(view.pulls[~np.isnan(view.pulls[:, k]), k])
        if len(logs) > SCATTERED_MOVES:
            jumps[k] = np.median(np.abs(np.diff(logs)))
    if np.isfinite(jumps).sum() < 2:
        return None
    k = int(np.nanargmax(jumps))
    others = float(np.nanmedian(np.delete(jumps, k)))
    if jumps[k] < max(SCATTERED * others, np.log(SCATTERED_LEAST)):
        return None
    task, own, rest = view.tasks[k], float(np.exp(jumps[k])), float(np.exp(others))
    whose = "those of the others" if len(view.tasks) > 2 else "that of the other"
    text = (
        f"The norm of '{task}' changes by a factor of {times(own)} from one measurement to the "
        f"next in the median, {whose} by {times(rest)}. Small batches or few labels look loud: "
        f"their noise counts as pull. Give '{task}' more examples in a batch, or use "
        'method="inverse-half", which leaves the noise out.'
    )
    headline = f"the gradient of '{task}' is mostly noise: small batches or few labels look loud."
    figures = {"task": task, "jump": own, "others": rest, "jumps": np.exp(jumps).tolist()}
    return Finding("scattered", text, figures, "", "watch", headline)
