"""How a history shows itself in a notebook, and as a table for other libraries."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gaba.record.history import History

VECTORS = ("losses", "norms", "weights", "contributions", "saturated")
SCALARS = ("measured", "finite", "gain", "imbalance", "times")


def columns(history: History) -> dict[str, np.ndarray[Any, Any]]:
    """Every column under a name of its own: ``gain``, ..., ``weights/rul``, ..."""
    found = {name: getattr(history, name) for name in SCALARS}
    for name in VECTORS:
        values = getattr(history, name)
        found |= {f"{name}/{task}": values[:, k] for k, task in enumerate(history.tasks)}
    cosines = history.cosines
    for i, one in enumerate(history.tasks):
        for j, other in enumerate(history.tasks[i + 1 :], start=i + 1):
            if np.isfinite(cosines[:, i, j]).any():
                found[f"cosines/{one}/{other}"] = cosines[:, i, j]
    return found


def as_html(history: History) -> str:
    """A small table: of each task the last loss, norm, weight and contribution, and saturation."""
    n, tasks = len(history), len(history.tasks)
    head = f"{n:,} step{'s' * (n != 1)} of {tasks} task{'s' * (tasks != 1)}"
    if not n:
        return f"<p>{html.escape(head)}</p>"
    imbalance = history.imbalance
    known = imbalance[~np.isnan(imbalance)]
    said = f", imbalance {np.median(known):.4g} in the median step" if known.size else ""
    last = [getattr(history, name)[-1] for name in VECTORS[:-1]]
    held = history.saturated.mean(axis=0)
    rows = "".join(
        f"<tr><th>{html.escape(task)}</th>"
        + "".join(f"<td>{_figure(values[k])}</td>" for values in last)
        + f"<td>{held[k]:.1%}</td></tr>"
        for k, task in enumerate(history.tasks)
    )
    names = "".join(
        f"<th>{name}</th>" for name in ("", "loss", "norm", "weight", "contribution", "saturated")
    )
    return (
        f"<table><caption>{html.escape(head + said)}; the last step, and how often a weight sat "
        f"on its floor</caption><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _figure(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4g}"
